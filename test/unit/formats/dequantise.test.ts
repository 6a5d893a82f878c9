import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { dequantise } from '../../../engine/formats/dequantise.ts';
import type { TensorType } from '../../../engine/formats/tensor.ts';
import { blockLayout, byteLengthOf, tensorTypes } from '../../../engine/formats/tensor.ts';
import { fixtureFile } from '../shared.ts';

/** Blocks of every type with the values libggml's own dequantisers give for them (see the fixture's codecs.json). */
interface Codecs {
  readonly tensor: (name: string) => Uint8Array;
  readonly layouts: Readonly<Record<string, { readonly block_elements: number; readonly block_bytes: number }>>;
}

/** Reads the fixture with nothing of Hearth's: eight bytes of length, JSON, data. */
function readCodecs(): Codecs {
  const file = readFileSync(fixtureFile('gguf/codecs.safetensors'));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  const data = file.subarray(8 + headerBytes);
  return {
    tensor: (name) => {
      const [begin, end] = header[name].data_offsets;
      return Uint8Array.from(data.subarray(begin, end));
    },
    layouts: JSON.parse(readFileSync(fixtureFile('gguf/codecs.json'), 'utf8')),
  };
}

const codecs = readCodecs();
const implemented = new Set<string>(tensorTypes);
const goldenTypes = Object.keys(codecs.layouts).filter((type): type is TensorType => implemented.has(type));

/** Bit patterns, so that signed zeros and NaN payloads count. */
const bitsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

function bitsOfGolden(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

describe('dequantise', () => {
  it('has a golden for every quantised type', () => {
    const quantised = tensorTypes.filter((type) => blockLayout(type).elements > 1);
    expect(quantised.filter((type) => !goldenTypes.includes(type))).toEqual([]);
  });

  describe.each(goldenTypes)('%s', (type) => {
    it("has ggml's block size", () => {
      const { block_elements: elements, block_bytes: bytes } = codecs.layouts[type] ?? {};
      expect(blockLayout(type)).toEqual({ elements, bytes });
    });

    it.each(['', '.rand'])('gives the same bits as libggml (%s)', (kind) => {
      const values = dequantise(type, codecs.tensor(`${type}${kind}.bytes`));
      expect(bitsOf(values)).toEqual(bitsOfGolden(codecs.tensor(`${type}${kind}.values`)));
    });

    it('reads bytes that start at an odd address', () => {
      const bytes = codecs.tensor(`${type}.bytes`);
      const shifted = new Uint8Array(bytes.byteLength + 1).subarray(1);
      shifted.set(bytes);
      expect(bitsOf(dequantise(type, shifted))).toEqual(bitsOfGolden(codecs.tensor(`${type}.values`)));
    });

    it('fills a given destination and nothing beside it', () => {
      const bytes = codecs.tensor(`${type}.bytes`);
      const golden = bitsOfGolden(codecs.tensor(`${type}.values`));
      const guarded = new Float32Array(golden.length + 2).fill(12345);
      const destination = guarded.subarray(1, -1);
      expect(dequantise(type, bytes, destination)).toBe(destination);
      expect(bitsOf(destination)).toEqual(golden);
      expect([guarded[0], guarded.at(-1)]).toEqual([12345, 12345]);
    });
  });

  // Expected values from table 1 and the text of "FP8 Formats for Deep Learning" (Micikevicius et al. 2022).
  it.each([
    ['F8_E4M3', 0x7e, 448],
    ['F8_E4M3', 0xfe, -448],
    ['F8_E4M3', 0x7f, Number.NaN],
    ['F8_E4M3', 0xff, Number.NaN],
    ['F8_E4M3', 0x01, 2 ** -9],
    ['F8_E4M3', 0x08, 2 ** -6],
    ['F8_E4M3', 0x38, 1],
    ['F8_E4M3', 0x80, -0],
    ['F8_E5M2', 0x7b, 57344],
    ['F8_E5M2', 0x7c, Number.POSITIVE_INFINITY],
    ['F8_E5M2', 0xfc, Number.NEGATIVE_INFINITY],
    ['F8_E5M2', 0x7d, Number.NaN],
    ['F8_E5M2', 0x01, 2 ** -16],
    ['F8_E5M2', 0x3c, 1],
    // OCP Microscaling Formats 1.0, section 5.4.1.
    ['F8_E8M0', 0, 2 ** -127],
    ['F8_E8M0', 127, 1],
    ['F8_E8M0', 254, 2 ** 127],
    ['F8_E8M0', 255, Number.NaN],
  ] as const)('reads %s 0x%s as %s', (type, byte, value) => {
    expect(dequantise(type, Uint8Array.of(byte))[0]).toBe(value);
  });

  it('widens every F16 that is not subnormal', () => {
    const bits = Uint16Array.from({ length: 0x10000 }, (_, i) => i).filter((pattern) => (pattern & 0x7c00) !== 0);
    const values = dequantise('F16', new Uint8Array(bits.buffer));
    expect(bits.findIndex((pattern, i) => !Object.is(values[i], widened(pattern)))).toBe(-1);
  });

  it.each([
    [0x0001, 2 ** -24],
    [0x03ff, 1023 * 2 ** -24],
    [0x8001, -(2 ** -24)],
    [0x8000, -0],
  ])('reads the subnormal F16 %i', (pattern, value) => {
    expect(dequantise('F16', new Uint8Array(Uint16Array.of(pattern).buffer))[0]).toBe(value);
  });

  it('keeps F32 bits, NaN payloads included', () => {
    const bits = Uint32Array.of(0x7fc00001, 0xff812345, 0x80000000, 1);
    expect(bitsOf(dequantise('F32', new Uint8Array(bits.buffer)))).toEqual(bits);
  });

  it.each([
    ['F64', new Float64Array([1.5, -(2 ** -30)]), [1.5, -(2 ** -30)]],
    ['I8', Int8Array.of(-128, 127), [-128, 127]],
    ['U8', Uint8Array.of(0, 255), [0, 255]],
    ['I16', Int16Array.of(-32768, 32767), [-32768, 32767]],
    ['U16', Uint16Array.of(65535), [65535]],
    ['I32', Int32Array.of(-(2 ** 31)), [-(2 ** 31)]],
    ['U32', Uint32Array.of(2 ** 31), [2 ** 31]],
    ['I64', BigInt64Array.of(-(2n ** 62n)), [-(2 ** 62)]],
    ['U64', BigUint64Array.of(2n ** 63n), [2 ** 63]],
    ['BOOL', Uint8Array.of(0, 1), [0, 1]],
  ] as const)('converts %s', (type, stored, expected) => {
    const bytes = new Uint8Array(stored.buffer);
    expect([...dequantise(type, bytes)]).toEqual(expected);
    const shifted = new Uint8Array(bytes.byteLength + 1).subarray(1);
    shifted.set(bytes);
    expect([...dequantise(type, shifted)]).toEqual(expected);
  });

  it('refuses half a block and a destination of another length', () => {
    expect(() => dequantise('Q4_0', new Uint8Array(9))).toThrow(RangeError);
    expect(() => dequantise('Q4_0', new Uint8Array(18), new Float32Array(31))).toThrow(RangeError);
  });
});

/** A normal binary16 widened by moving its fields into a binary32 (IEEE 754, 3.4), not by arithmetic. */
function widened(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  const exponent = (bits >> 10) & 31;
  view.setUint32(
    0,
    ((bits & 0x8000) << 16) | ((exponent === 31 ? 255 : exponent + 112) << 23) | ((bits & 0x3ff) << 13),
  );
  return view.getFloat32(0);
}

describe('byteLengthOf', () => {
  it.each([
    ['F32', [], 4],
    ['F32', [2, 3], 24],
    ['F32', [0, 3], 0],
    ['Q4_0', [2, 64], 72],
    ['Q6_K', [3, 512], 1260],
    ['MXFP4', [4, 2880], 6120],
  ] as const)('%s %j is %i bytes', (type, shape, bytes) => {
    expect(byteLengthOf(type, shape)).toBe(bytes);
  });

  it.each([
    ['a row of half a block', 'Q4_0', [2, 48]],
    ['rows that are whole blocks only together', 'Q4_0', [2, 16]],
    ['more than 2^53 elements', 'F32', [2 ** 30, 2 ** 30]],
    ['more than 2^53 elements behind a zero', 'F32', [2 ** 30, 2 ** 30, 0]],
    ['more than 2^53 bytes', 'F64', [2 ** 51]],
    ['a negative dimension', 'F32', [-1]],
    ['a fraction', 'F32', [1.5]],
    ['a dimension that is not a number', 'F32', [Number.NaN]],
  ] as const)('refuses %s', (_, type, shape) => {
    expect(() => byteLengthOf(type as TensorType, shape)).toThrow(
      expect.objectContaining({ code: 'invalid-input' }) as Error,
    );
  });
});
