/**
 * Stands in for the package of this name, which onnxruntime-node needs for nothing but its install script. The script calls
 * this first and would then fetch CUDA libraries, which Hearth does not use: https://github.com/microsoft/onnxruntime/blob/main/js/node/script/install.js
 * Its own switches are an environment variable, which a project cannot set, and a setting of npm, which warns of settings it does not know.
 */
exports.bootstrap = () => process.exit(0);
