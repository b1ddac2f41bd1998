// A ViT of a synthetic shape as an ONNX model with random weights, for onnxruntime: the same products, attention and norms as ours, with
// float32 weights or with int8 ones that quantize their activations as they go. The weights lie in a file beside the graph.
import { mkdir, open, rename, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { abortedError } from '../errors.js';
import type { VisionShape } from './synthetic.js';

export type OnnxType = 'fp32' | 'int8';
export const MODEL_FILE = 'model.onnx';
export const WEIGHTS_FILE = 'weights.bin';

// ---- protobuf, as far as onnx.proto needs it: fields are a number and bytes, or a number and a varint

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Buffer.from([...bytes, rest]);
}
const number = (field: number, value: number): Buffer => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field: number, value: Buffer | string): Buffer => {
  const content = Buffer.from(value);
  return Buffer.concat([varint(field * 8 + 2), varint(content.length), content]);
};
const float = (field: number, value: number): Buffer => {
  const content = Buffer.alloc(4);
  content.writeFloatLE(value);
  return Buffer.concat([varint(field * 8 + 5), content]);
};
const message = (field: number, ...parts: Buffer[]): Buffer => bytes(field, Buffer.concat(parts));

// ---- numbers of onnx.proto's fields and enumerations

const TYPES = { float32: 1, int8: 3, int64: 7 } as const;
const EXTERNAL = 1; // TensorProto.data_location
const IR_VERSION = 9;
const OPSET = 20; // the first with Gelu
const MICROSOFT = 'com.microsoft';

type Attribute = number | number[] | { float: number };

function attribute(name: string, value: Attribute): Buffer {
  if (typeof value === 'number') return message(5, bytes(1, name), number(3, value), number(20, 2));
  if (Array.isArray(value)) return message(5, bytes(1, name), ...value.map((each) => number(8, each)), number(20, 7));
  return message(5, bytes(1, name), float(2, value.float), number(20, 1));
}

/** A graph that grows node by node; tensors are named by numbers. */
class Graph {
  readonly #file: FileHandle;
  readonly #signal: AbortSignal | undefined;
  readonly #nodes: Buffer[] = [];
  readonly #constants: Buffer[] = [];
  #names = 0;
  #written = 0;

  constructor(file: FileHandle, signal?: AbortSignal) {
    this.#file = file;
    this.#signal = signal;
  }

  #name = (): string => `t${this.#names++}`;

  op(type: string, inputs: string[], attributes: Record<string, Attribute> = {}, domain = ''): string {
    return this.ops(type, inputs, attributes, 1, domain)[0]!;
  }

  ops(
    type: string,
    inputs: string[],
    attributes: Record<string, Attribute>,
    outputs: number,
    domain = '',
    names = Array.from({ length: outputs }, this.#name),
  ): string[] {
    this.#nodes.push(
      message(
        1,
        ...inputs.map((input) => bytes(1, input)),
        ...names.map((output) => bytes(2, output)),
        bytes(4, type),
        ...Object.entries(attributes).map(([name, value]) => attribute(name, value)),
        ...(domain ? [bytes(7, domain)] : []),
      ),
    );
    return names;
  }

  integers(values: number[]): string {
    const name = this.#name();
    const raw = Buffer.from(BigInt64Array.from(values.map(BigInt)).buffer);
    this.#constants.push(message(5, number(1, values.length), number(2, TYPES.int64), bytes(8, name), bytes(9, raw)));
    return name;
  }

  /** A weight beside the graph, on a page of its own, filled with pieces of `values` from random places. */
  async weight(shape: number[], type: 'float32' | 'int8', values: Buffer): Promise<string> {
    const name = this.#name();
    const length = shape.reduce((product, size) => product * size, type === 'int8' ? 1 : 4);
    const offset = this.#written;
    for (let left = length; left > 0;) {
      if (this.#signal?.aborted) throw abortedError(this.#signal);
      const start = values.length <= 4096 ? 0 : 4 * Math.floor((Math.random() * values.length) / 8);
      const piece = values.subarray(start, start + Math.min(left, values.length - start));
      await this.#file.write(piece, 0, piece.length, offset + length - left);
      left -= piece.length;
    }
    this.#written = Math.ceil((offset + length) / 4096) * 4096;
    const entry = (key: string, value: string | number) => message(13, bytes(1, key), bytes(2, String(value)));
    this.#constants.push(
      message(
        5,
        ...shape.map((size) => number(1, size)),
        number(2, TYPES[type]),
        bytes(8, name),
        entry('location', WEIGHTS_FILE),
        entry('offset', offset),
        entry('length', length),
        number(14, EXTERNAL),
      ),
    );
    return name;
  }

  model(input: [string, number[]], output: [string, number[]]): Buffer {
    const value = (field: number, [name, shape]: [string, number[]]) => {
      const dimensions = message(2, ...shape.map((size) => message(1, number(1, size))));
      return message(field, bytes(1, name), message(2, message(1, number(1, TYPES.float32), dimensions)));
    };
    const graph = [...this.#nodes, bytes(2, 'vit'), ...this.#constants, value(11, input), value(12, output)];
    const opset = (domain: string, version: number) => message(8, bytes(1, domain), number(2, version));
    return Buffer.concat([number(1, IR_VERSION), message(7, ...graph), opset('', OPSET), opset(MICROSOFT, 1)]);
  }
}

// ---- the ViT

/** Bytes of its weights, about. */
export function onnxBytes({ width, mlp, depth }: VisionShape, type: OnnxType): number {
  return depth * (4 * width + 2 * mlp) * width * (type === 'int8' ? 1 : 4) + 2 ** 25;
}

/** Writes a folder with a model in it; the model's own file comes last. */
export async function writeOnnxVit(
  folder: string,
  shape: VisionShape,
  type: OnnxType,
  signal?: AbortSignal,
): Promise<void> {
  const { width, heads, depth, mlp, patch, image } = shape;
  const head = width / heads;
  const side = image / patch;
  const rows = side ** 2 + 1;
  const random = (): number => (Math.random() + Math.random() - 1) * 0.04;
  const floats = Buffer.from(Float32Array.from({ length: 2 ** 20 }, random).buffer);
  const codes = Buffer.from(Int8Array.from({ length: 2 ** 20 }, () => Math.round(random() * 2000)).buffer);
  const same = (value: number): Buffer => Buffer.from(new Float32Array(1024).fill(value).buffer);
  const [ones, zeros, scales] = [same(1), same(0), same(0.0005)];

  await mkdir(folder, { recursive: true });
  const file = await open(join(folder, WEIGHTS_FILE), 'w');
  try {
    const graph = new Graph(file, signal);
    const weight = (...sizes: number[]): Promise<string> => graph.weight(sizes, 'float32', floats);
    const norm = async (x: string): Promise<string> =>
      graph.op(
        'LayerNormalization',
        [x, await graph.weight([width], 'float32', ones), await graph.weight([width], 'float32', zeros)],
        { axis: 2, epsilon: { float: 1e-6 } },
      );
    const linear = async (x: string, from: number, to: number): Promise<string> => {
      if (type === 'fp32') return graph.op('Add', [graph.op('MatMul', [x, await weight(from, to)]), await weight(to)]);
      const matrix = await graph.weight([from, to], 'int8', codes);
      const scale = await graph.weight([to], 'float32', scales);
      return graph.op('DynamicQuantizeMatMul', [x, matrix, scale, '', await weight(to)], {}, MICROSOFT);
    };
    const add = (a: string, b: string): string => graph.op('Add', [a, b]);
    const reshape = (x: string, ...sizes: number[]): string => graph.op('Reshape', [x, graph.integers(sizes)]);

    const patches = graph.op('Conv', ['pixels', await weight(width, 3, patch, patch), await weight(width)], {
      kernel_shape: [patch, patch],
      strides: [patch, patch],
    });
    const columns = graph.op('Transpose', [reshape(patches, 1, width, side ** 2)], { perm: [0, 2, 1] });
    const first = graph.op('Concat', [await weight(1, 1, width), columns], { axis: 1 });
    let x = add(first, await weight(1, rows, width));
    const scale = await graph.weight([1], 'float32', same(head ** -0.5));
    for (let layer = 0; layer < depth; layer++) {
      const qkv = reshape(await linear(await norm(x), width, 3 * width), 1, rows, 3, heads, head);
      const parted = graph.op('Transpose', [qkv], { perm: [2, 0, 3, 1, 4] });
      const [q, k, v] = graph
        .ops('Split', [parted, graph.integers([1, 1, 1])], { axis: 0 }, 3)
        .map((part) => graph.op('Squeeze', [part, graph.integers([0])]));
      const keys = graph.op('Transpose', [k!], { perm: [0, 1, 3, 2] });
      const scores = graph.op('MatMul', [graph.op('Mul', [q!, scale]), keys]);
      const mixed = graph.op('MatMul', [graph.op('Softmax', [scores], { axis: 3 }), v!]);
      const attended = reshape(graph.op('Transpose', [mixed], { perm: [0, 2, 1, 3] }), 1, rows, width);
      x = add(x, await linear(attended, width, width));
      const hidden = graph.op('Gelu', [await linear(await norm(x), width, mlp)]);
      x = add(x, await linear(hidden, mlp, width));
    }
    graph.ops('Identity', [await norm(x)], {}, 1, '', ['features']);
    await file.sync();
    const path = join(folder, MODEL_FILE);
    const model = graph.model(['pixels', [1, 3, image, image]], ['features', [1, rows, width]]);
    await writeFile(`${path}.part`, model);
    await rename(`${path}.part`, path);
  } finally {
    await file.close();
  }
}
