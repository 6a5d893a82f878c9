/**
 * Disables ONNX Runtime's telemetry. Import it before ONNX Runtime; the tests' configurations import it too. The builds
 * on npm send events to Microsoft and store a device identifier in the home folder, since 1.29 also on Linux and macOS,
 * unless these variables are set before the library is loaded (its docs/Privacy.md). They must be set on the main
 * thread, because other threads have a copy of the environment.
 */
const switches = [
  'ORT_DISABLE_TELEMETRY',
  // Its name in later versions.
  'ORT_TELEMETRY_DISABLED',
  // The only switch in the Windows build; it has no other effect.
  ...(process.platform === 'win32' ? ['ORT_RUNNING_UNIT_TESTS'] : []),
];
for (const name of switches) process.env[name] = '1';
