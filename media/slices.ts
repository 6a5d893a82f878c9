/** Long work of the page runs at once for this long, and then in slices of the same length between which the page answers. */
const sliceMs = 12;
let sliceEndMs: number | undefined;
const waiting: (() => void)[] = [];

/** Works on an element now or in a later slice, in the order of the calls; not if the element has left the page by then. */
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
