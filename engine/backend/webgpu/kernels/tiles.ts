/**
 * A tile of a matmul with many rows of x, shared by `matrixMatrix` and `expertTiles`. Uses subgroup matrices if the adapter
 * has them (`matrixTiles.ts`), otherwise plain f32, which every adapter supports.
 */
import type { TensorType } from '../../../formats/tensor.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import { type BufferDeclaration, read, type SharedAccess } from './bindings.ts';
import { loadStep, matrixTile, type TileProduct, tileColumns, tileRows, tileTokens } from './matrixTiles.ts';

export interface TileCode {
  /** Before everything else in the shader. */
  readonly enables: string;
  /** The binding of x, made by `Recorder.tileOperand`. */
  readonly x: readonly BufferDeclaration[];
  readonly declarations: string;
  /** Parameters of `main` after `group` and `thread`. */
  readonly builtins: string;
  /** Statements of `main`, in uniform control flow. */
  readonly body: string;
}

/** Needs `unitCode` and `weightCode` of `weight`, of that type. */
export function tileCode(type: TensorType, product: TileProduct, capabilities: GpuCapabilities): TileCode {
  const { subgroups, subgroupMatrix } = capabilities;
  return subgroups && subgroupMatrix
    ? matrixTile(type, product, { subgroups, matrix: subgroupMatrix })
    : plainTile(product);
}

/** Rows of a plain tile are padded by one vec4, so that they do not start in the same bank. */
const stride = tileColumns / 4 + 1;

/** Reads of the loop over a plain tile's columns. */
export const plainTileAccesses: readonly SharedAccess[] = [
  { name: 'weights', address: (thread) => 16 * stride * (thread % 16) },
  { name: 'x', address: (thread) => 16 * stride * Math.floor(thread / 16) },
];

/** Each thread computes four rows of x by four of the matrix, 16 apart. */
function plainTile(product: TileProduct): TileCode {
  const quads = tileColumns / 4;
  const four = [0, 1, 2, 3];
  return {
    enables: '',
    x: [read('x', 'vec4f')],
    builtins: '',
    declarations: /* wgsl */ `
var<workgroup> tile_w: array<vec4f, ${tileRows * stride}>;
var<workgroup> tile_x: array<vec4f, ${tileTokens * stride}>;`,
    body: /* wgsl */ `
  ${four.map((t) => `var sum${t} = vec4f();`).join(' ')}
  let tx = thread % 16u;
  let ty = thread / 16u;
  for (var first = 0u; first < weight_COLUMNS / 8u; first += ${quads / 2}u) {
    ${loadStep(product, { xType: 'vec4f', x: `tile_x[t * ${stride}u + quad] = value;`, weight: `tile_w[r * ${stride}u + quad] = value;` })}
    workgroupBarrier();
    for (var quad = 0u; quad < ${quads}u; quad++) {
      ${four.map((r) => `let w${r} = tile_w[(tx + ${16 * r}u) * ${stride}u + quad];`).join('\n      ')}
      ${four.map((t) => `{ let v = tile_x[(ty + ${16 * t}u) * ${stride}u + quad]; sum${t} += vec4f(dot(w0, v), dot(w1, v), dot(w2, v), dot(w3, v)); }`).join('\n      ')}
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < 4u; i++) {
    let r = tx + 16u * i;
    ${four.map((each) => `{ let t = ty + ${16 * each}u; let value = sum${each}[i]; if (t < ${product.count}) { ${product.store} } }`).join('\n    ')}
  }`,
  };
}
