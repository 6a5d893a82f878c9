/** The size of a tile of a prompt's product, and the loading of its operands: the same for plain tiles and subgroup matrices. */

export const tileTokens = 64;
export const tileRows = 64;
/** Columns of a step: four units of a matrix row, in the matrix's own order, so that they need not follow each other. */
export const tileColumns = 32;
export const tileThreads = 256;

/** Expressions speak of `t` and `r`, a row of x and a row of the matrix within the tile, and of what the kernel declares. */
export interface TileProduct {
  /** Row of `weight`; must exist for every r. */
  readonly weightRow: string;
  /** Row of x, of `xWidth` values; asked for t below `count` only. */
  readonly xRow: string;
  readonly xWidth: number;
  /** From the start of x's row, in four values. */
  readonly xOffset: string;
  /** Rows of x in the tile; more than the tile has count as all. */
  readonly count: string;
  /** Statement that takes `value` at t, r, for t below `count`. */
  readonly store: string;
}

interface Destination {
  /** WGSL type of four values of x. */
  readonly xType: string;
  /** Statement that keeps `value`, of `quad` in row t. */
  readonly x: string;
  /** Statement that keeps `value`, a vec4f, of `quad` in row r. */
  readonly weight: string;
}

/** Statements by which the workgroup loads the step that starts with unit `first`; what is not there becomes zero. */
export function loadStep(product: TileProduct, { xType, x, weight }: Destination): string {
  const quads = tileColumns / 4;
  const units = tileColumns / 8;
  return /* wgsl */ `
    for (var i = thread; i < ${tileTokens * quads}u; i += ${tileThreads}u) {
      let t = i / ${quads}u;
      let quad = i % ${quads}u;
      let unit = first + quad / 2u;
      var value = ${xType}();
      if (t < ${product.count} && unit < weight_COLUMNS / 8u) {
        value = x[${product.xRow} * ${product.xWidth / 4}u + ${product.xOffset} + weight_columns(unit)[quad % 2u]];
      }
      ${x}
    }
    for (var i = thread; i < ${tileRows * units}u; i += ${tileThreads}u) {
      let r = i / ${units}u;
      let unit = first + i % ${units}u;
      var both = Unit(vec4f(), vec4f());
      if (unit < weight_COLUMNS / 8u) { both = weight_unit(${product.weightRow}, unit); }
      { let quad = 2u * (i % ${units}u); let value = both.a; ${weight} }
      { let quad = 2u * (i % ${units}u) + 1u; let value = both.b; ${weight} }
    }`;
}
