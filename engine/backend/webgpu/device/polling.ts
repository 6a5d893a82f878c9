/**
 * Slows the polls of Dawn's Node binding. While a GPU call is pending, the binding asks the driver for news in every
 * turn of the event loop (`setImmediate`; src/dawn/node/binding/AsyncRunner.cpp), so a wait takes a whole processor.
 * With this, the first milliseconds of a wait stay as they are, because a decode step ends within them; afterwards a
 * poll comes every millisecond.
 */

/** Waits of a decode step. */
const quickMs = 10;
const slowMs = 1;

type Callback = (...args: unknown[]) => void;

const native = 'function () { [native code] }';
/** A function made by a native addon. Bound functions have the same text, but no `prototype`. */
const isOfAddon = (callback: Callback): boolean => Object.hasOwn(callback, 'prototype') && `${callback}` === native;

/** Replaces `setImmediate` of `target` for native addons; anything else gets the original. */
export function slowPolls(target: { setImmediate: (callback: Callback, ...args: never[]) => unknown }): void {
  const next = target.setImmediate;
  let [isPolling, startMs] = [false, 0];
  const slowed: typeof next = (callback, ...args) => {
    if (!isOfAddon(callback)) return next(callback, ...args);
    // A poll that asks for another one continues its wait.
    if (!isPolling) startMs = performance.now();
    const poll = (): void => {
      isPolling = true;
      try {
        callback();
      } finally {
        isPolling = false;
      }
    };
    return performance.now() - startMs < quickMs ? next(poll) : setTimeout(poll, slowMs);
  };
  // Among them is the symbol by which `promisify` finds its own form.
  target.setImmediate = Object.defineProperties(slowed, Object.getOwnPropertyDescriptors(next));
}
