import katex from 'katex';
import type { Formula } from '../extension/answerMarkup.ts';
import { inSlices } from './slices.ts';

/** A cell of a matrix takes some twenty DOM elements. */
const maxCells = 300;

/** Shows a formula: first its source, which is replaced at once or in a later slice. */
export function showFormula(place: HTMLElement, formula: Formula): void {
  place.textContent = formula.raw.trim();
  inSlices(place, () => typeset(place, formula));
}

/**
 * Typesets a formula, or keeps its source if KaTeX cannot parse it. KaTeX creates elements and sets their style properties,
 * which the page's CSP allows. `trust: false`: no links, images, classes or ids from a formula. The numbers limit macro
 * expansions, and in em how far a formula may extend beyond its line.
 */
function typeset(place: HTMLElement, { raw, tex, display }: Formula): void {
  const options = { displayMode: display, throwOnError: true, strict: 'ignore', trust: false } as const;
  if (tex.split(/&|\\\\/).length > maxCells) return;
  try {
    katex.render(tex, place, { ...options, maxExpand: 200, maxSize: 10 });
    if (display) place.classList.add('display');
  } catch {
    // A ParseError, or a RangeError from hundreds of nested brackets.
    place.textContent = raw.trim();
  }
}
