/** Long work runs at once for this long, then in slices of the same length, between which the page handles events. */
const sliceMs = 12;
let sliceEndMs: number | undefined;
const waiting: (() => void)[] = [];

/** Runs `work` on an element now or in a later slice, in call order, unless the element has been removed by then. */
export function inSlices(element: Element, work: () => void): void {
  if (sliceEndMs === undefined) {
    sliceEndMs = performance.now() + sliceMs;
    setTimeout(nextSlice, 0);
  }
  if (waiting.length === 0 && performance.now() < sliceEndMs) work();
  else waiting.push(() => element.isConnected && work());
}

function nextSlice(): void {
  if (waiting.length === 0) {
    sliceEndMs = undefined;
    return;
  }
  sliceEndMs = performance.now() + sliceMs;
  do waiting.shift()?.();
  while (waiting.length > 0 && performance.now() < sliceEndMs);
  setTimeout(nextSlice, 0);
}
