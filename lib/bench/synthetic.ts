// Model files of real sizes with random weights: for measuring, where no weights can be had. Blocks are drawn at random
// with sane scales, so that activations stay finite.
//
//   node --import tsx bench/synthetic.ts llm 7b q4_0 vicuna-7b-q4_0.gguf
//   node --import tsx bench/synthetic.ts vision vit-g f16 vision.gguf
import { randomFillSync } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { addon, type GgufKey, type TypeName } from '../lib/addon.js';

interface Llm {
  width: number;
  heads: number;
  kvHeads: number;
  depth: number;
  mlp: number;
  vocab: number;
}

/** Shapes of published models: Vicuna v0 7B and 13B, TinyLlama's 1.1B, and a 65M one of the same form. */
export const LLMS: Record<string, Llm> = {
  '65m': { width: 512, heads: 8, kvHeads: 8, depth: 8, mlp: 1376, vocab: 32000 },
  '1.1b': { width: 2048, heads: 32, kvHeads: 4, depth: 22, mlp: 5632, vocab: 32000 },
  '7b': { width: 4096, heads: 32, kvHeads: 32, depth: 32, mlp: 11008, vocab: 32001 },
  '13b': { width: 5120, heads: 40, kvHeads: 40, depth: 40, mlp: 13824, vocab: 32001 },
};

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
  if (!block) throw new Error(`${type} is not written by this script`);
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

interface Planned {
  name: string;
  type: TypeName;
  shape: number[];
}

async function write(
  path: string,
  keys: GgufKey[],
  tensors: Planned[],
  ones: (name: string) => boolean,
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
      for (let row = 0; row < rows; row += chunk)
        await writer.write(type, randomRows(type, Math.min(chunk, rows - row), cols));
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

/** A llama-architecture file; q4_k means llama.cpp's Q4_K_M mix. */
export async function writeLlm(size: string, type: TypeName, path: string): Promise<void> {
  const m = LLMS[size];
  if (!m) throw new Error(`size ${size}: expected one of ${Object.keys(LLMS).join(', ')}`);
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
    text('general.name', `synthetic ${size} ${type}`),
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
    return i < eighth || i >= m.depth - eighth || (i - eighth) % 3 === 2;
  };
  const better = (i: number): TypeName => (type === 'q4_k' && more(i) ? 'q6_k' : type);
  const tensors: Planned[] = [{ name: 'token_embd.weight', type, shape: [m.vocab, m.width] }];
  const kv = m.kvHeads * head;
  for (let i = 0; i < m.depth; ++i) {
    const b = `blk.${i}.`;
    const matrix = (name: string, rows: number, cols: number, t: TypeName = type): void => {
      tensors.push({ name: `${b}${name}.weight`, type: t, shape: [rows, cols] });
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
  await write(path, keys, tensors, () => true);
}

/** ViT-g/14 with the full Q-Former and a projection to a 7B model; `layers` leaves out what a measurement does not compute. */
export async function writeVision(
  type: TypeName,
  path: string,
  to = 4096,
  layers = { vit: 39, qformer: 12 },
): Promise<void> {
  const W = 1408,
    M = 6144,
    P = 257,
    depth = layers.vit,
    q = 768,
    F = 3072,
    Q = 32;
  const keys: GgufKey[] = [
    text('general.architecture', 'minigpt4'),
    text('general.name', `synthetic ViT-g ${type}`),
    u32('minigpt4.vit.image_size', 224),
    u32('minigpt4.vit.patch_size', 14),
    u32('minigpt4.vit.embedding_length', W),
    u32('minigpt4.vit.head_count', 16),
    u32('minigpt4.vit.block_count', depth),
    u32('minigpt4.vit.feed_forward_length', M),
    f32('minigpt4.vit.layer_norm_epsilon', 1e-6),
    f32('minigpt4.vit.post_norm_epsilon', 1e-5),
    { key: 'minigpt4.image.mean', type: 'array', elementType: 'f32', value: [0.48145466, 0.4578275, 0.40821073] },
    { key: 'minigpt4.image.std', type: 'array', elementType: 'f32', value: [0.26862954, 0.26130258, 0.27577711] },
    u32('minigpt4.qformer.embedding_length', q),
    u32('minigpt4.qformer.head_count', 12),
    u32('minigpt4.qformer.block_count', layers.qformer),
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
  const tensors: Planned[] = [];
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
  linear('v.patch_embd', W, 588);
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
  for (let i = 0; i < layers.qformer; ++i) {
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
  await write(path, keys, tensors, (name) => /(ln\d|norm|ln)\.weight$/.test(name));
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [kind, size, type, path] = process.argv.slice(2);
  if (!path || !type || (kind !== 'llm' && kind !== 'vision')) {
    console.error(
      'usage: synthetic.ts llm 65m|1.1b|7b|13b TYPE OUT.gguf\n       synthetic.ts vision vit-g TYPE OUT.gguf',
    );
    process.exit(2);
  }
  if (kind === 'llm') await writeLlm(size!, type as TypeName, path);
  else await writeVision(type as TypeName, path);
  console.log(`${path} written`);
}
