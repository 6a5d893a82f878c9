/**
 * Imported where ONNX Runtime is loaded, before it, and by the tests' configurations. Its builds on npm send events to Microsoft and keep an
 * identifier of the device in the home folder, since 1.29 on Linux and macOS too, unless the environment says no before the
 * library is loaded (its docs/Privacy.md). It has to be set on the main thread: the environment of another thread is a copy.
 */
const switches = [
  'ORT_DISABLE_TELEMETRY',
  // Its name in later versions.
  'ORT_TELEMETRY_DISABLED',
  // The only one that Windows' build knows; it does nothing else.
  ...(process.platform === 'win32' ? ['ORT_RUNNING_UNIT_TESTS'] : []),
];
for (const name of switches) process.env[name] = '1';
