/** Measures the contrast of what a page shows, as WCAG 2.2 defines it (1.4.3 for text, 1.4.11 for icons of controls). */

export interface Faint {
  what: string;
  ratio: number;
  colours: string;
}

/** Parts below the required ratio. Runs in the page, so it is self-contained. `under`: the background below a transparent webview. */
export function faintParts(body: Element, under: string): Faint[] {
  type Colour = readonly [red: number, green: number, blue: number, alpha: number];
  const leastText = 4.5;
  const leastIcon = 3;
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  if (context === null) throw new Error('There is no canvas to read colours with.');
  // Computed colours have many notations; a canvas parses them all.
  const read = (text: string): Colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = text;
    context.fillRect(0, 0, 1, 1);
    const [red = 0, green = 0, blue = 0, alpha = 0] = context.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = ([r, g, b, a]: Colour, [red, green, blue]: Colour): Colour => [
    r * a + red * (1 - a),
    g * a + green * (1 - a),
    b * a + blue * (1 - a),
    1,
  ];
  const linear = (value: number) => (value <= 10.31475 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]: Colour) =>
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  const ratio = (a: Colour, b: Colour) => {
    const [light = 0, dark = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (light + 0.05) / (dark + 0.05);
  };
  const ancestors = (element: Element): Element[] =>
    element.parentElement === null ? [element] : [...ancestors(element.parentElement), element];
  const background = (element: Element): Colour =>
    ancestors(element).reduce((below, at) => over(read(getComputedStyle(at).backgroundColor), below), read(under));
  const opacity = (element: Element) =>
    ancestors(element).reduce((product, at) => product * Number(getComputedStyle(at).opacity), 1);
  const seen = (element: Element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
    element.closest('.visually-hidden, :disabled, [aria-hidden=true]:not(svg)') === null;

  const faint: Faint[] = [];
  const judge = (element: Element, what: string, colour: string, least: number) => {
    const behind = background(element);
    const [red, green, blue, alpha] = read(colour);
    const front = over([red, green, blue, alpha * opacity(element)], behind);
    const found = ratio(front, behind);
    if (found >= least) return;
    const hex = (shown: Colour) =>
      shown
        .slice(0, 3)
        .map((part) => Math.round(part))
        .join(' ');
    faint.push({ what, ratio: Math.round(found * 100) / 100, colours: `${hex(front)} on ${hex(behind)}` });
  };
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
    const element = node.parentElement;
    const text = node.textContent?.trim() ?? '';
    if (element === null || text === '' || element.closest('script, textarea') !== null || !seen(element)) continue;
    judge(
      element,
      `${element.className || element.tagName}: ${text.slice(0, 40)}`,
      getComputedStyle(element).color,
      leastText,
    );
  }
  for (const box of body.querySelectorAll('textarea')) {
    if (!seen(box)) continue;
    const pseudo = box.value === '' ? '::placeholder' : undefined;
    judge(box, `${box.id || box.className}: text`, getComputedStyle(box, pseudo).color, leastText);
  }
  for (const icon of body.querySelectorAll('button svg, summary svg')) {
    if (seen(icon)) judge(icon, `icon: ${icon.getAttribute('class')}`, getComputedStyle(icon).stroke, leastIcon);
  }
  return faint;
}
