// What converting takes at the published sizes: a checkpoint of ViT-g and its Q-Former with random values is written in the
// naming of Salesforce/blip2-*, then converted in a process of its own for each type. Measures time and the largest memory.
//
//   node --import tsx bench/full-size-convert.ts [--types f16,q8_0] [--folder FOLDER] [--out FILE.json]
//
// Needs 5 GB in FOLDER, by default a new one of the system's folder for temporary files; what was written there is removed.
import { execFileSync } from 'node:child_process';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { TypeName } from '../lib/addon.js';
import { convert } from '../lib/convert.js';
import { memoryNow, threadTimes, threadUse, type ThreadUse } from '../lib/bench/machine.js';
import { writeRecord } from './record.js';
import { randomRows } from '../lib/bench/synthetic.js';

interface Planned {
  name: string;
  type: 'f16' | 'f32';
  shape: number[];
}
interface Converted {
  outputBytes: number;
  wallMs: number;
  /** null where the system does not tell. */
  peakResidentBytes: number | null;
  use?: ThreadUse;
}

const rowsOf = ({ shape }: Planned): [rows: number, cols: number] => {
  const total = shape.reduce((product, size) => product * size, 1);
  return [total / shape.at(-1)!, shape.at(-1)!];
};

/** ViT-g in fp16 with the 40 blocks that files hold, the Q-Former in fp32: what the published files have. */
function blip2(): Planned[] {
  const [width, mlp, q, hidden] = [1408, 6144, 768, 3072];
  const tensors: Planned[] = [];
  const add = (type: Planned['type'], name: string, ...shape: number[]): void =>
    void tensors.push({ name, type, shape });
  const both = (type: Planned['type'], name: string, ...shape: number[]): void => {
    add(type, `${name}.weight`, ...shape);
    add(type, `${name}.bias`, shape[0]!);
  };
  add('f16', 'vision_model.embeddings.class_embedding', 1, 1, width);
  add('f16', 'vision_model.embeddings.position_embedding', 1, 257, width);
  both('f16', 'vision_model.embeddings.patch_embedding', width, 3, 14, 14);
  for (let i = 0; i < 40; i++) {
    const block = `vision_model.encoder.layers.${i}.`;
    both('f16', `${block}layer_norm1`, width);
    both('f16', `${block}self_attn.qkv`, 3 * width, width);
    both('f16', `${block}self_attn.projection`, width, width);
    both('f16', `${block}layer_norm2`, width);
    both('f16', `${block}mlp.fc1`, mlp, width);
    both('f16', `${block}mlp.fc2`, width, mlp);
  }
  both('f32', 'vision_model.post_layernorm', width);
  add('f32', 'query_tokens', 1, 32, q);
  both('f32', 'qformer.layernorm', q);
  for (let i = 0; i < 12; i++) {
    const layer = `qformer.encoder.layer.${i}.`;
    for (const kind of i % 2 === 0 ? ['attention', 'crossattention'] : ['attention']) {
      both('f32', `${layer}${kind}.attention.query`, q, q);
      for (const part of ['key', 'value'])
        both('f32', `${layer}${kind}.attention.${part}`, q, kind === 'attention' ? q : width);
      both('f32', `${layer}${kind}.output.dense`, q, q);
      both('f32', `${layer}${kind}.output.LayerNorm`, q);
    }
    both('f32', `${layer}intermediate_query.dense`, hidden, q);
    both('f32', `${layer}output_query.dense`, q, hidden);
    both('f32', `${layer}output_query.LayerNorm`, q);
  }
  return tensors;
}

/** The 7B models' projection. */
const PROJECTION: Planned[] = [
  { name: 'llama_proj.weight', type: 'f32', shape: [4096, 768] },
  { name: 'llama_proj.bias', type: 'f32', shape: [4096] },
];

/** Eight bytes of the header's length, the header, the values. */
async function writeSafetensors(path: string, tensors: Planned[]): Promise<void> {
  let end = 0;
  const entries = tensors.map((tensor) => {
    const [rows, cols] = rowsOf(tensor);
    const begin = end;
    end += rows * cols * (tensor.type === 'f16' ? 2 : 4);
    return [tensor.name, { dtype: tensor.type.toUpperCase(), shape: tensor.shape, data_offsets: [begin, end] }];
  });
  const json = JSON.stringify(Object.fromEntries(entries));
  const header = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = await open(path, 'w');
  try {
    await file.writeFile(length);
    await file.writeFile(header);
    for (const tensor of tensors) await file.writeFile(randomRows(tensor.type, ...rowsOf(tensor)));
  } finally {
    await file.close();
  }
}

async function converted(type: string, vision: string, projection: string, out: string): Promise<Converted> {
  const before = threadTimes();
  const began = performance.now();
  const options = { vit: vision, qformer: vision, projection, out, type: type as TypeName, only: 'vision' as const };
  const outputBytes = type === 'none' ? 0 : (await convert(options)).bytes;
  const wallMs = Math.round(performance.now() - began);
  const use = threadUse(before);
  return { outputBytes, wallMs, peakResidentBytes: memoryNow()?.peak ?? null, ...(use ? { use } : {}) };
}

const words = process.argv.slice(2);
if (words[0] === 'measure') {
  // the process of one measurement
  console.log(JSON.stringify(await converted(...(words.slice(1) as Parameters<typeof converted>))));
} else {
  const { values } = parseArgs({
    options: {
      types: { type: 'string', default: 'f16,q8_0' },
      folder: { type: 'string', default: tmpdir() },
      out: { type: 'string' },
    },
  });
  const folder = await mkdtemp(join(values.folder, 'minigpt4-convert-'));
  try {
    const [vision, projection, out] = ['blip2.safetensors', 'projection.safetensors', 'out.gguf'].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    const tensors = blip2();
    await writeSafetensors(vision, tensors);
    await writeSafetensors(projection, PROJECTION);
    const measure = (of: string): Converted => {
      const script = fileURLToPath(import.meta.url);
      const child = [...process.execArgv, script, 'measure', of, vision, projection, out];
      return JSON.parse(execFileSync(process.execPath, child, { encoding: 'utf8' })) as Converted;
    };
    const largest = Math.max(...tensors.map((tensor) => rowsOf(tensor)[0] * rowsOf(tensor)[1] * 2));
    const record = {
      what: 'convert --only vision, from TypeScript sources; random values; the checkpoint was just written, so mostly in the page cache',
      inputBytes: (await stat(vision)).size + (await stat(projection)).size,
      largestTensorBytes: largest,
      processAloneBytes: measure('none').peakResidentBytes,
      runs: values.types.split(',').map((of) => {
        const run = measure(of);
        console.log(
          `${of}: ${run.wallMs / 1000} s, peak ${((run.peakResidentBytes ?? NaN) / 1e6).toFixed(0)} MB, ${run.outputBytes} bytes`,
        );
        return { type: of, ...run };
      }),
    };
    if (values.out) await writeRecord(values.out, record);
  } finally {
    await rm(folder, { recursive: true });
  }
}
