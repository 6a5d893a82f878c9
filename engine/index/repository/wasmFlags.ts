import { setFlagsFromString } from 'node:v8';

/**
 * Keeps WebAssembly that is compiled from now on unoptimised. Optimising a grammar's lexer, one huge function, takes V8
 * 500 MB for a moment; without, files take a quarter longer to read, which nobody waits for.
 */
export function keepWasmUnoptimised(): void {
  for (const flag of ['--no-wasm-tier-up', '--no-wasm-dynamic-tiering']) setFlagsFromString(flag);
}
