import katex from 'katex';
import type { Formula } from '../extension/answerMarkup.ts';
import { inSlices } from './slices.ts';

/** A cell of a matrix takes some twenty elements of the page. */
const maxCells = 300;

/** Shows a formula: its source first, which is replaced at once or in a later slice. */
export function showFormula(place: HTMLElement, formula: Formula): void {
  place.textContent = formula.raw.trim();
  inSlices(place, () => typeset(place, formula));
}

/**
 * Typesets a formula, or leaves its source where KaTeX cannot read it. KaTeX makes elements and sets their styles one by
 * one, which the page's CSP allows. `trust: false`: no links, pictures, classes or ids from a formula. The numbers bound
 * what a macro may expand to, and how far a formula may reach out of its line, in em.
 */
function typeset(place: HTMLElement, { raw, tex, display }: Formula): void {
  const options = { displayMode: display, throwOnError: true, strict: 'ignore', trust: false } as const;
  if (tex.split(/&|\\\\/).length > maxCells) return;
  try {
    katex.render(tex, place, { ...options, maxExpand: 200, maxSize: 10 });
    if (display) place.classList.add('display');
  } catch {
    // A ParseError names a place in the source; a RangeError comes from hundreds of brackets within each other.
    place.textContent = raw.trim();
  }
}
