// Model files of real sizes with random weights: for measuring, where no weights can be had. Blocks are drawn at random
// with sane scales, so that activations stay finite.
import { randomFillSync } from 'node:crypto';
import { addon, type GgufKey, type GgufTensorInfo, type TypeName } from '../addon.js';
import { abortedError, MiniGptError } from '../errors.js';

export interface LlmShape {
  width: number;
  heads: number;
  kvHeads: number;
  depth: number;
  mlp: number;
  vocab: number;
}

/** Shapes of published models: Vicuna v0 7B and 13B, TinyLlama's 1.1B, a 65M one of the same form, and one that is only for trying things. */
export const LLMS: Record<string, LlmShape> = {
  tiny: { width: 256, heads: 4, kvHeads: 2, depth: 2, mlp: 512, vocab: 1024 },
  '65m': { width: 512, heads: 8, kvHeads: 8, depth: 10, mlp: 1408, vocab: 32000 },
  '1.1b': { width: 2048, heads: 32, kvHeads: 4, depth: 22, mlp: 5632, vocab: 32000 },
  '7b': { width: 4096, heads: 32, kvHeads: 32, depth: 32, mlp: 11008, vocab: 32001 },
  '13b': { width: 5120, heads: 40, kvHeads: 40, depth: 40, mlp: 13824, vocab: 32001 },
};

export interface VisionShape {
  image: number;
  patch: number;
  width: number;
  heads: number;
  depth: number;
  mlp: number;
  queries: number;
  queryWidth: number;
  queryHeads: number;
  queryDepth: number;
  queryMlp: number;
}

/** ViT-g/14 with the full Q-Former, and one that is only for trying things. */
export const VISIONS: Record<string, VisionShape> = {
  'vit-tiny': {
    ...{ image: 56, patch: 14, width: 64, heads: 4, depth: 2, mlp: 128 },
    ...{ queries: 4, queryWidth: 64, queryHeads: 4, queryDepth: 2, queryMlp: 128 },
  },
  'vit-g': {
    ...{ image: 224, patch: 14, width: 1408, heads: 16, depth: 39, mlp: 6144 },
    ...{ queries: 32, queryWidth: 768, queryHeads: 12, queryDepth: 12, queryMlp: 3072 },
  },
};

/** A file's type as llama.cpp names it: `q4_k_m` is its mix of q4_k and q6_k. */
export type FileType = TypeName | 'q4_k_m';

/** Bytes and values of a block, and where its half-precision scales lie. */
const BLOCKS: Partial<Record<TypeName, { values: number; bytes: number; scales: number[] }>> = {
  q4_0: { values: 32, bytes: 18, scales: [0] },
  q4_1: { values: 32, bytes: 20, scales: [0, 2] },
  q5_0: { values: 32, bytes: 22, scales: [0] },
  q5_1: { values: 32, bytes: 24, scales: [0, 2] },
  q8_0: { values: 32, bytes: 34, scales: [0] },
  q4_k: { values: 256, bytes: 144, scales: [0, 2] },
  q5_k: { values: 256, bytes: 176, scales: [0, 2] },
  q6_k: { values: 256, bytes: 210, scales: [208] },
};

const PLAIN: Partial<Record<TypeName, { values: number; bytes: number }>> = {
  f32: { values: 1, bytes: 4 },
  f16: { values: 1, bytes: 2 },
  bf16: { values: 1, bytes: 2 },
};

function unwritten(type: string): never {
  const known = [...Object.keys(PLAIN), ...Object.keys(BLOCKS)].join(', ');
  throw new MiniGptError('ERR_ARGUMENT', `synthetic weights: expected one of ${known}, found ${type}`);
}

/** IEEE half of a positive number up to 65504, subnormal ones included. */
function half(value: number): number {
  const exponent = Math.floor(Math.log2(value));
  if (exponent < -14) return Math.round(value * 2 ** 24);
  return ((exponent + 15) << 10) + Math.round((value / 2 ** exponent - 1) * 1024);
}

/** Raw rows of random weights: about 0.7 / sqrt(cols) in size. */
export function randomRows(type: TypeName, rows: number, cols: number): Uint8Array {
  const std = 0.7 / Math.sqrt(cols);
  if (type === 'f32') {
    const values = new Float32Array(rows * cols);
    for (let i = 0; i < values.length; ++i) values[i] = (Math.random() * 2 - 1) * std * 1.7;
    return new Uint8Array(values.buffer);
  }
  if (type === 'f16' || type === 'bf16') {
    // a table of halves, drawn from at random
    const table = Uint16Array.from({ length: 256 }, (_, i) => {
      const value = (((i % 128) + 0.5) / 128) * std * 1.7;
      const bits = type === 'f16' ? half(value) : new Uint32Array(new Float32Array([value]).buffer)[0]! >>> 16;
      return bits | (i < 128 ? 0 : 0x8000);
    });
    const bytes = randomFillSync(new Uint8Array(rows * cols));
    const values = new Uint16Array(rows * cols);
    for (let i = 0; i < values.length; ++i) values[i] = table[bytes[i]!]!;
    return new Uint8Array(values.buffer);
  }
  const block = BLOCKS[type];
  if (!block) return unwritten(type);
  const count = (rows * cols) / block.values;
  const bytes = Buffer.alloc(count * block.bytes);
  randomFillSync(bytes);
  const codes = { q4_0: 8, q4_1: 8, q5_0: 16, q5_1: 16, q8_0: 74, q4_k: 8 * 32, q5_k: 16 * 32, q6_k: 19 * 74 }[
    type as 'q4_0'
  ];
  for (let b = 0; b < count; ++b) {
    for (const at of block.scales)
      bytes.writeUInt16LE(half((std / codes) * (0.75 + 0.5 * Math.random())), b * block.bytes + at);
  }
  return bytes;
}

export interface PlannedTensor {
  name: string;
  type: TypeName;
  shape: number[];
}

export interface SyntheticFile {
  keys: GgufKey[];
  tensors: PlannedTensor[];
  /** Which of the vectors are ones (norms); the others are zeros. */
  ones(name: string): boolean;
}

/** A file's tensors as they will be found in it. */
export function plannedTensors({ tensors }: SyntheticFile): GgufTensorInfo[] {
  return tensors.map((tensor) => {
    const values = tensor.shape.reduce((product, size) => product * size, 1);
    const { values: each, bytes } = PLAIN[tensor.type] ?? BLOCKS[tensor.type] ?? unwritten(tensor.type);
    return { ...tensor, bytes: (values / each) * bytes, grouped: false };
  });
}

/** Writes a planned file. Rejects with what the writer says, and with ERR_ABORTED between two pieces. */
export async function writeSynthetic(
  path: string,
  { keys, tensors, ones }: SyntheticFile,
  signal?: AbortSignal,
): Promise<void> {
  const writer = addon.createGgufWriter(path, keys, tensors);
  try {
    for (const { name, type, shape } of tensors) {
      const cols = shape.at(-1)!;
      const rows = shape.length > 1 ? shape[0]! : 1;
      if (shape.length === 1) {
        await writer.write('f32', new Uint8Array(new Float32Array(cols).fill(ones(name) ? 1 : 0).buffer));
        continue;
      }
      const chunk = Math.max(1, Math.min(rows, Math.floor(2 ** 24 / cols)));
      for (let row = 0; row < rows; row += chunk) {
        if (signal?.aborted) throw abortedError(signal);
        await writer.write(type, randomRows(type, Math.min(chunk, rows - row), cols));
      }
    }
    await writer.finish();
  } catch (error) {
    writer.discard();
    throw error;
  }
}

const u32 = (key: string, value: number): GgufKey => ({ key, type: 'u32', value });
const f32 = (key: string, value: number): GgufKey => ({ key, type: 'f32', value });
const text = (key: string, value: string): GgufKey => ({ key, type: 'string', value });

/** A known shape by its name. Error ERR_ARGUMENT lists the names. */
export function shapeOf<Shape>(shapes: Record<string, Shape>, name: string): Shape {
  if (Object.hasOwn(shapes, name)) return shapes[name]!;
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `synthetic size: expected one of ${Object.keys(shapes).join(', ')}, found ${name}`,
  );
}

/** A llama-architecture file. Types of single tensors are those that llama.cpp's quantizer chooses for a file of that type. */
export function planLlm(size: string, fileType: FileType): SyntheticFile {
  const m = shapeOf(LLMS, size);
  const type: TypeName = fileType === 'q4_k_m' ? 'q4_k' : fileType;
  const head = m.width / m.heads;
  const pieces = [
    '<unk>',
    '<s>',
    '</s>',
    ...Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`),
  ];
  while (pieces.length < m.vocab) pieces.push(`▁w${pieces.length}`);
  const kinds = pieces.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));
  const keys: GgufKey[] = [
    text('general.architecture', 'llama'),
    text('general.name', `synthetic ${size} ${fileType}`),
    u32('llama.context_length', 2048),
    u32('llama.embedding_length', m.width),
    u32('llama.block_count', m.depth),
    u32('llama.feed_forward_length', m.mlp),
    u32('llama.attention.head_count', m.heads),
    u32('llama.attention.head_count_kv', m.kvHeads),
    f32('llama.attention.layer_norm_rms_epsilon', 1e-6),
    u32('llama.rope.dimension_count', head),
    u32('llama.vocab_size', m.vocab),
    text('tokenizer.ggml.model', 'llama'),
    { key: 'tokenizer.ggml.tokens', type: 'array', elementType: 'string', value: pieces },
    { key: 'tokenizer.ggml.scores', type: 'array', elementType: 'f32', value: pieces.map((_, i) => -i) },
    { key: 'tokenizer.ggml.token_type', type: 'array', elementType: 'i32', value: kinds },
    u32('tokenizer.ggml.bos_token_id', 1),
    u32('tokenizer.ggml.eos_token_id', 2),
    u32('tokenizer.ggml.unknown_token_id', 0),
  ];
  // which layers have more bits in a Q4_K_M file: the first and last eighth, and each third between
  const more = (i: number): boolean => {
    const eighth = Math.floor(m.depth / 8);
    return i < eighth || i >= Math.floor((7 * m.depth) / 8) || (i - eighth) % 3 === 2;
  };
  const better = (i: number): TypeName => (fileType === 'q4_k_m' && more(i) ? 'q6_k' : type);
  // rows that are no whole number of blocks of 256 fall back to blocks of 32
  const fitting = (wanted: TypeName, cols: number): TypeName =>
    cols % 256 === 0 ? wanted : wanted === 'q4_k' ? 'q5_0' : wanted === 'q6_k' ? 'q8_0' : wanted;
  const tensors: PlannedTensor[] = [{ name: 'token_embd.weight', type, shape: [m.vocab, m.width] }];
  const kv = m.kvHeads * head;
  for (let i = 0; i < m.depth; ++i) {
    const b = `blk.${i}.`;
    const matrix = (name: string, rows: number, cols: number, t: TypeName = type): void => {
      tensors.push({ name: `${b}${name}.weight`, type: fitting(t, cols), shape: [rows, cols] });
    };
    tensors.push({ name: `${b}attn_norm.weight`, type: 'f32', shape: [m.width] });
    matrix('attn_q', m.width, m.width);
    matrix('attn_k', kv, m.width);
    matrix('attn_v', kv, m.width, better(i));
    matrix('attn_output', m.width, m.width);
    tensors.push({ name: `${b}ffn_norm.weight`, type: 'f32', shape: [m.width] });
    matrix('ffn_gate', m.mlp, m.width);
    matrix('ffn_up', m.mlp, m.width);
    matrix('ffn_down', m.width, m.mlp, better(i));
  }
  tensors.push({ name: 'output_norm.weight', type: 'f32', shape: [m.width] });
  const head6: TypeName = m.width % 256 === 0 && type.startsWith('q') && type !== 'q8_0' ? 'q6_k' : type;
  tensors.push({ name: 'output.weight', type: head6, shape: [m.vocab, m.width] });
  return { keys, tensors, ones: () => true };
}

export const writeLlm = (size: string, type: FileType, path: string): Promise<void> =>
  writeSynthetic(path, planLlm(size, type));

/** A vision file with its Q-Former and a projection to vectors of `to` numbers. */
export function planVision(name: string, shape: VisionShape, type: TypeName, to: number): SyntheticFile {
  const { width: W, mlp: M, depth, queryWidth: q, queryMlp: F, queries: Q } = shape;
  const P = (shape.image / shape.patch) ** 2 + 1;
  const keys: GgufKey[] = [
    text('general.architecture', 'minigpt4'),
    text('general.name', `synthetic ${name} ${type}`),
    u32('minigpt4.vit.image_size', shape.image),
    u32('minigpt4.vit.patch_size', shape.patch),
    u32('minigpt4.vit.embedding_length', W),
    u32('minigpt4.vit.head_count', shape.heads),
    u32('minigpt4.vit.block_count', depth),
    u32('minigpt4.vit.feed_forward_length', M),
    f32('minigpt4.vit.layer_norm_epsilon', 1e-6),
    f32('minigpt4.vit.post_norm_epsilon', 1e-5),
    { key: 'minigpt4.image.mean', type: 'array', elementType: 'f32', value: [0.48145466, 0.4578275, 0.40821073] },
    { key: 'minigpt4.image.std', type: 'array', elementType: 'f32', value: [0.26862954, 0.26130258, 0.27577711] },
    u32('minigpt4.qformer.embedding_length', q),
    u32('minigpt4.qformer.head_count', shape.queryHeads),
    u32('minigpt4.qformer.block_count', shape.queryDepth),
    u32('minigpt4.qformer.feed_forward_length', F),
    u32('minigpt4.qformer.query_count', Q),
    u32('minigpt4.qformer.cross_attention_every', 2),
    f32('minigpt4.qformer.layer_norm_epsilon', 1e-12),
    u32('minigpt4.projection.input_length', q),
    u32('minigpt4.projection.output_length', to),
    u32('minigpt4.projection.patches_per_token', 1),
    text('minigpt4.variant', 'minigpt4-vicuna0'),
    text('minigpt4.template', 'vicuna0'),
  ];
  const tensors: PlannedTensor[] = [];
  const floats = (name: string, ...shape: number[]): void => void tensors.push({ name, type: 'f32', shape });
  const norm = (name: string, width: number): void => {
    floats(`${name}.weight`, width);
    floats(`${name}.bias`, width);
  };
  const linear = (name: string, rows: number, cols: number): void => {
    tensors.push({ name: `${name}.weight`, type: cols % 32 ? 'f16' : type, shape: [rows, cols] });
    floats(`${name}.bias`, rows);
  };
  floats('v.class_embd', W);
  floats('v.position_embd.weight', P, W);
  linear('v.patch_embd', W, 3 * shape.patch ** 2);
  for (let i = 0; i < depth; ++i) {
    const b = `v.blk.${i}.`;
    norm(`${b}ln1`, W);
    linear(`${b}attn_qkv`, 3 * W, W);
    linear(`${b}attn_out`, W, W);
    norm(`${b}ln2`, W);
    linear(`${b}ffn_up`, M, W);
    linear(`${b}ffn_down`, W, M);
  }
  norm('v.post_ln', W);
  floats('qf.query_tokens', Q, q);
  norm('qf.embd_norm', q);
  for (let i = 0; i < shape.queryDepth; ++i) {
    const b = `qf.blk.${i}.`;
    for (const kind of i % 2 === 0 ? ['attn', 'cross'] : ['attn']) {
      const from = kind === 'cross' ? W : q;
      linear(`${b}${kind}_q`, q, q);
      linear(`${b}${kind}_k`, q, from);
      linear(`${b}${kind}_v`, q, from);
      linear(`${b}${kind}_out`, q, q);
      norm(`${b}${kind}_norm`, q);
    }
    linear(`${b}ffn_up`, F, q);
    linear(`${b}ffn_down`, q, F);
    norm(`${b}ffn_norm`, q);
  }
  linear('mm', to, q);
  return { keys, tensors, ones: (name) => /(ln\d|norm|ln)\.weight$/.test(name) };
}

/** ViT-g/14 with the full Q-Former; `layers` leaves out what a measurement does not compute. */
export const writeVision = (
  type: TypeName,
  path: string,
  to = 4096,
  layers = { vit: 39, qformer: 12 },
): Promise<void> =>
  writeSynthetic(
    path,
    planVision('ViT-g', { ...VISIONS['vit-g']!, depth: layers.vit, queryDepth: layers.qformer }, type, to),
  );
