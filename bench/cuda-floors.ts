// What the GPU's ops cost on paper: for every op at the real shapes the bytes that must move and the operations that must be done,
// hence the least time on an H100; sums for a decoding step, a prompt, a picture and a training step, beside the goals. No GPU is needed.
//
//   node --import tsx bench/cuda-floors.ts [--out FILE.json]
//
// A floor is the larger of bytes over the copy rate and operations over the matrix rate, both as measured on an H100 (not its
// data sheet), so no kernel can beat it; `gpu/check.sh` prints what is reached. Activations are counted where they are written
// and read between launches, weights once.
import { parseArgs } from 'node:util';
import { writeRecord } from './record.js';

const { values } = parseArgs({ options: { out: { type: 'string' } } });

/** Measured: a large device-to-device copy (bytes read and written), torch.matmul in bf16. */
const h100 = { copy: 3.0e12, matrix: 790e12 };
/**
 * Between two nodes of a replayed graph, as published for this generation; to be measured. Without the overlap that launches of a
 * decoding step are allowed (gpu::wait_for_previous), which is to shorten it: by how much is not known either.
 */
const launchGap = 1.3e-6;

interface Op {
  name: string;
  /** Times in the whole. */
  times: number;
  bytes: number;
  operations: number;
  /** Kernels a time. */
  launches: number;
}

const F32 = 4;
const bitsOf = { q4_0: 4.5, q4_k: 4.625, q8_0: 8.5, f16: 16 } as const;
type WeightType = keyof typeof bitsOf;

/** Rows prepared for the matrix units: q8 with its scales, or 16-bit. */
const preparedBytes = (type: WeightType, T: number, width: number) =>
  type === 'f16' ? 2 * T * width : (1 + 8 / 32) * Math.ceil(T / 8) * 8 * width;

/** One launch of products of the same rows, and the launch that prepares them. */
function products(name: string, type: WeightType, T: number, cols: number, rows: number[], inputs = 1): Op[] {
  const outputs = rows.reduce((sum, n) => sum + n, 0);
  const prepared = preparedBytes(type, T, cols);
  return [
    {
      name: `${name}: rows`,
      times: 1,
      bytes: inputs * T * cols * F32 + prepared,
      operations: 8 * T * cols,
      launches: 1,
    },
    {
      name,
      times: 1,
      bytes: (outputs * cols * bitsOf[type]) / 8 + prepared + T * outputs * F32,
      operations: 2 * T * cols * outputs,
      launches: 1,
    },
  ];
}

const times = (n: number, ops: Op[]): Op[] => ops.map((op) => ({ ...op, times: op.times * n }));

interface Llama {
  width: number;
  layers: number;
  heads: number;
  mlp: number;
  vocab: number;
}
const vicuna: Record<string, Llama> = {
  '7B': { width: 4096, layers: 32, heads: 32, mlp: 11008, vocab: 32000 },
  '13B': { width: 5120, layers: 40, heads: 40, mlp: 13824, vocab: 32000 },
};

/** A pass of T rows whose queries see `seen` positions each on average; logits at `logits` rows. */
function llama(m: Llama, type: WeightType, T: number, sequences: number, seen: number, logits: number): Op[] {
  const row = T * m.width * F32;
  const keys = Math.min(seen * 2, seen + T / sequences) * sequences; // positions read once, whoever asks
  const layer: Op[] = [
    ...products('q, k, v', type, T, m.width, [m.width, m.width, m.width]),
    { name: 'rope_kv_write', times: 1, bytes: 5 * row + 4 * T * m.width, operations: 12 * T * m.width, launches: 1 },
    {
      name: 'attend_paged',
      times: 1,
      bytes: 2 * row + 4 * keys * m.width,
      operations: 4 * T * seen * m.width,
      launches: 2,
    },
    ...products('attention out', type, T, m.width, [m.width]),
    ...products('gate, up', type, T, m.width, [m.mlp, m.mlp]),
    ...products('down', type, T, m.mlp, [m.width], 2),
  ];
  return [
    { name: 'embed', times: 1, bytes: (T * m.width * bitsOf[type]) / 8 + row, operations: 0, launches: 1 },
    ...times(m.layers, layer),
    { name: 'gather_rows', times: 1, bytes: 2 * logits * m.width * F32, operations: 0, launches: 1 },
    ...products('logits', type, logits, m.width, [m.vocab]),
    { name: 'sample', times: 1, bytes: logits * m.vocab * F32, operations: 8 * logits * m.vocab, launches: 1 },
  ];
}

function vit(B: number): Op[] {
  const width = 1408;
  const mlp = 6144;
  const rows = 257;
  const T = B * rows;
  const row = T * width * F32;
  const block: Op[] = [
    ...products('ViT qkv', 'f16', T, width, [3 * width]),
    { name: 'ViT attention', times: 1, bytes: 4 * row, operations: 4 * T * rows * width, launches: 1 },
    ...products('ViT out', 'f16', T, width, [width]),
    ...products('ViT up', 'f16', T, width, [mlp]),
    ...products('ViT down', 'f16', T, mlp, [width]),
  ];
  return [
    { name: 'patchify', times: 1, bytes: 2 * B * 3 * 224 * 224 * F32, operations: 0, launches: 1 },
    ...products('patches', 'f16', B * 256, 588, [width]),
    { name: 'prepend_class', times: 1, bytes: 2 * row, operations: T * width, launches: 1 },
    ...times(39, block),
    { name: 'ln_vision', times: 1, bytes: 2 * row, operations: 8 * T * width, launches: 1 },
  ];
}

function qformer(B: number): Op[] {
  const C = 768;
  const T = B * 32;
  const seen = B * 257;
  const attention = (name: string, keys: number, keyRows: number, keyWidth: number): Op[] => [
    ...products(`Q-Former ${name} q`, 'f16', T, C, [C]),
    ...products(`Q-Former ${name} k, v`, 'f16', keyRows, keyWidth, [C, C]),
    {
      name: `Q-Former ${name} attention`,
      times: 1,
      bytes: (2 * T + 2 * keyRows) * C * F32,
      operations: 4 * T * keys * C,
      launches: 1,
    },
    ...products(`Q-Former ${name} out`, 'f16', T, C, [C]),
    { name: `Q-Former ${name} norm`, times: 1, bytes: 2 * T * C * F32, operations: 8 * T * C, launches: 1 },
  ];
  return [
    ...times(12, attention('self', 32, T, C)),
    ...times(6, attention('cross', 257, seen, 1408)),
    ...times(12, [
      ...products('Q-Former up', 'f16', T, C, [3072]),
      ...products('Q-Former down', 'f16', T, 3072, [C]),
      { name: 'Q-Former norm', times: 1, bytes: 2 * T * C * F32, operations: 8 * T * C, launches: 1 },
    ]),
    ...products('projection', 'f16', T, C, [4096]),
  ];
}

/** The way back of `T` rows, all of them asked for: each layer done again, then its gradients. */
function backward(m: Llama, type: WeightType, T: number, sequences: number, targets: number): Op[] {
  const seen = T / sequences / 2;
  const row = T * m.width * F32;
  const dx = (name: string, rows: number, cols: number): Op => ({
    name: `${name} dx`,
    times: 1,
    bytes: (rows * cols * bitsOf[type]) / 8 + T * (rows + cols) * F32,
    operations: 2 * T * rows * cols,
    launches: 1,
  });
  const again = llama(m, type, T, sequences, seen, 1).filter(
    ({ name }) => !/embed|logits|sample|gather_rows|down/.test(name),
  );
  const layer: Op[] = [
    dx('down', m.width, m.mlp),
    { name: 'silu_mul_dx', times: 1, bytes: 5 * T * m.mlp * F32, operations: 12 * T * m.mlp, launches: 1 },
    dx('gate', m.mlp, m.width),
    dx('up', m.mlp, m.width),
    { name: 'rms_norm_dx', times: 2, bytes: 4 * row, operations: 10 * T * m.width, launches: 1 },
    dx('attention out', m.width, m.width),
    { name: 'attend_dx', times: 1, bytes: 8 * row, operations: 14 * T * seen * m.width, launches: 2 },
    { name: 'rope_dx', times: 2, bytes: 2 * row, operations: 6 * T * m.width, launches: 1 },
    dx('q', m.width, m.width),
    dx('k', m.width, m.width),
    dx('v', m.width, m.width),
  ];
  return [
    ...again,
    ...times(m.layers, layer),
    { ...dx('logits', m.vocab, m.width), operations: 2 * targets * m.vocab * m.width },
    {
      name: 'cross_entropy',
      times: 1,
      bytes: 2 * targets * m.vocab * F32,
      operations: 6 * targets * m.vocab,
      launches: 1,
    },
  ];
}

const floorOf = ({ bytes, operations }: Op) => Math.max(bytes / h100.copy, operations / h100.matrix);
const sum = (ops: Op[], of: (op: Op) => number) => ops.reduce((total, op) => total + op.times * of(op), 0);

interface Whole {
  name: string;
  ops: Op[];
  /** What is wanted, of the same floor: seconds. */
  goal?: { seconds: number; words: string };
}

const wholes: Whole[] = [];
for (const [name, m] of Object.entries(vicuna)) {
  for (const type of ['q4_0', 'q4_k', 'f16'] as const) {
    const ops = llama(m, type, 1, 1, 256, 1);
    const goal =
      name !== '7B' || type === 'q4_k'
        ? {}
        : type === 'q4_0'
          ? { goal: { seconds: 1 / 480, words: '480 tokens/s' } }
          : { goal: { seconds: sum(ops, ({ bytes }) => bytes) / h100.copy / 0.75, words: '75 % of the copy rate' } };
    wholes.push({ name: `${name} ${type}: one token, 256 positions before it`, ops, ...goal });
  }
  wholes.push({ name: `${name} q4_0: 8 chats, one token each`, ops: llama(m, 'q4_0', 8, 8, 256, 8) });
  wholes.push({ name: `${name} q4_0: prompt of 128`, ops: llama(m, 'q4_0', 128, 1, 64, 1) });
  const T = 12 * 192;
  wholes.push({
    name: `${name} q4_0: training step, 12 x 192 rows`,
    ops: [...llama(m, 'q4_0', T, 12, 96, T / 2), ...backward(m, 'q4_0', T, 12, T / 2)],
  });
}
const pictures = [...vit(32), ...qformer(32)];
wholes.push({ name: 'one picture, ViT-g f16 and Q-Former', ops: [...vit(1), ...qformer(1)] });
wholes.push({
  name: '32 pictures at once',
  ops: pictures,
  goal: {
    seconds: sum(pictures, ({ operations }) => operations) / h100.matrix / 0.6,
    words: '60 % of the matrix rate',
  },
});

const ms = (seconds: number) => (seconds * 1000).toPrecision(3);
const results = wholes.map(({ name, ops, goal }) => {
  const launches = sum(ops, (op) => op.launches);
  const floor = sum(ops, floorOf);
  const merged = new Map<
    string,
    { name: string; times: number; bytes: number; operations: number; floor_us: number }
  >();
  for (const op of ops) {
    const row = merged.get(op.name) ?? {
      name: op.name,
      times: 0,
      bytes: op.bytes,
      operations: op.operations,
      floor_us: 0,
    };
    row.times += op.times;
    row.floor_us = +(floorOf(op) * 1e6).toPrecision(4);
    merged.set(op.name, row);
  }
  console.log(
    `${name}\n  ${(sum(ops, ({ bytes }) => bytes) / 1e9).toFixed(2)} GB, ` +
      `${(sum(ops, ({ operations }) => operations) / 1e12).toFixed(3)} TFLOP, ${launches} launches: floor ${ms(floor)} ms, ` +
      `with gaps between launches ${ms(floor + launches * launchGap)} ms` +
      (goal ? `; goal ${goal.words}: ${ms(goal.seconds)} ms` : ''),
  );
  const slowest = [...merged.values()].sort((a, b) => b.times * b.floor_us - a.times * a.floor_us).slice(0, 6);
  for (const op of slowest) console.log(`    ${op.name.padEnd(28)} ${op.times} x ${op.floor_us} us`);
  return {
    name,
    bytes: sum(ops, ({ bytes }) => bytes),
    operations: sum(ops, ({ operations }) => operations),
    launches,
    floor_ms: +ms(floor),
    with_gaps_ms: +ms(floor + launches * launchGap),
    ...(goal ? { goal: goal.words, goal_ms: +ms(goal.seconds) } : {}),
    ops: [...merged.values()],
  };
});

if (values.out !== undefined) {
  await writeRecord(values.out, { device: { name: 'H100, measured rates', ...h100, launchGap }, results });
}
