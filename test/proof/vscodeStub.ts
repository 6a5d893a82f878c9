/** `node --import` this file: the `vscode` module is the unit tests' stub. */
import { registerHooks } from 'node:module';

const stub = new URL('../unit/extension/vscode.ts', import.meta.url).href;
registerHooks({
  resolve: (name, context, next) =>
    name === 'vscode' ? { url: stub, shortCircuit: true, format: 'module-typescript' } : next(name, context),
});
