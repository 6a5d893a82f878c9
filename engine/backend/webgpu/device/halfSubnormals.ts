/**
 * Whether unpack2x16float keeps f16 values below 2^-14: WGSL lets a device flush them (section 15.7.2). Reading four-bit and
 * eight-bit floats as the bits of an f16 is cheapest; their smallest values become such subnormals.
 */

/** 2^-15 and -2^-24 as f16, and the expected f32. */
const halves = 0x8001_0200;
const expected = [2 ** -15, -(2 ** -24)];

const code = /* wgsl */ `
@group(0) @binding(0) var<storage, read> halves: array<u32>;
@group(0) @binding(1) var<storage, read_write> values: array<vec2f>;
@compute @workgroup_size(1)
fn main() { values[0] = unpack2x16float(halves[0]); }
`;

export async function keepsHalfSubnormals(device: GPUDevice): Promise<boolean> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const input = device.createBuffer({ size: 16, usage });
  const output = device.createBuffer({ size: 16, usage });
  const reading = device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const module = device.createShaderModule({ label: 'half subnormals', code });
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
  device.queue.writeBuffer(input, 0, new Uint32Array([halves, 0, 0, 0]));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const resources = [input, output];
  const entries = resources.map((buffer, binding) => ({ binding, resource: { buffer } }));
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(output, 0, reading, 0, 16);
  device.queue.submit([encoder.finish()]);
  await reading.mapAsync(GPUMapMode.READ);
  const values = [...new Float32Array(reading.getMappedRange(), 0, 2)];
  for (const buffer of [input, output, reading]) buffer.destroy();
  return values.every((value, i) => value === expected[i]);
}
