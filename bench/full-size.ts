// What the real thing takes on this machine, with random weights: a language model of Vicuna 7B's size and ViT-g with its
// Q-Former. Measures loading, memory, and llama-bench's tests (pp: prompt tokens a second, tg: generated tokens a second),
// encoding a picture, and the time from a new picture to the first word. Writes a record into bench/results/.
//
//   node --import tsx bench/full-size.ts [--folder FOLDER] [--keep] [--llm 7b] [--llm-type q4_0] [--vision-type f16]
//                                        [--threads N] [--repeat 3] [--patience SECONDS] [--out FILE.json]
//
// The files (6 GB) are written into FOLDER, by default a new one of the system's folder for temporary files, and removed
// afterwards but for those that were there already; --keep leaves them for the next time.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, rmdir, stat } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { addon, packageRoot, type GgufTensorInfo, type TypeName } from '../lib/addon.js';
import type { Measured, Timed, Wishes } from './full-size-measure.js';
import { DISTURBED_SHARE, memoryBench } from './machine.js';
import { writeRecord } from './record.js';
import { LLMS, writeLlm, writeVision } from './synthetic.js';

const { values } = parseArgs({
  options: {
    folder: { type: 'string' },
    keep: { type: 'boolean', default: false },
    llm: { type: 'string', default: '7b' },
    'llm-type': { type: 'string', default: 'q4_0' },
    'vision-type': { type: 'string', default: 'f16' },
    threads: { type: 'string' },
    repeat: { type: 'string', default: '3' },
    patience: { type: 'string', default: '60' },
    out: { type: 'string' },
  },
});
const size = LLMS[values.llm];
if (!size) throw new Error(`--llm: expected one of ${Object.keys(LLMS).join(', ')}, found ${values.llm}`);
const threads = values.threads === undefined ? availableParallelism() : Number(values.threads);
const wishes: Wishes = {
  repeat: Number(values.repeat),
  patience: Number(values.patience),
  ...(values.threads === undefined ? {} : { threads }),
};
const llmType = values['llm-type'] as TypeName;
const visionType = values['vision-type'] as TypeName;

// ---- counts that turn times into rates

/** Bytes that one generated token reads: all of the language model but the embedding table, of which it reads one row. */
function bytesPerToken(tensors: GgufTensorInfo[]): number {
  return tensors
    .filter(({ name }) => name.startsWith('blk.') || name.startsWith('output'))
    .reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Products and sums, counted as two, of the matrix products (attention's included) that encode one picture. */
function encodingOperations(tensors: GgufTensorInfo[]): number {
  const shape = (name: string): number[] => {
    const found = tensors.find((tensor) => tensor.name === name);
    if (!found) throw new Error(`the vision file has no tensor ${name}`);
    return found.shape;
  };
  const [seen, width] = shape('v.position_embd.weight') as [number, number]; // patches and the class token
  const [queries, queryWidth] = shape('qf.query_tokens') as [number, number];
  const attention = (rows: number, keys: number, columns: number) => 4 * rows * keys * columns;
  let sum = 0;
  for (const { name, shape } of tensors) {
    if (shape.length !== 2 || name === 'v.position_embd.weight' || name === 'qf.query_tokens') continue;
    const rows = name === 'v.patch_embd.weight' ? seen - 1 : /^v\.|cross_[kv]\./.test(name) ? seen : queries;
    sum += 2 * rows * shape[0]! * shape[1]!;
    if (name.endsWith('attn_qkv.weight')) sum += attention(seen, seen, width);
    if (name.endsWith('.attn_q.weight')) sum += attention(queries, queries, queryWidth);
    if (name.endsWith('.cross_q.weight')) sum += attention(queries, seen, queryWidth);
  }
  return sum;
}

// ---- files

const folder = values.folder ? resolve(values.folder) : await mkdtemp(join(tmpdir(), 'minigpt4-full-size-'));
await mkdir(folder, { recursive: true });
const written: string[] = [];

/** Writes a file unless it is there; gives how long that took. */
async function made(path: string, write: (path: string) => Promise<void>): Promise<number | undefined> {
  if (existsSync(path)) return undefined;
  console.log(`writing ${path}`);
  const began = performance.now();
  await write(path);
  written.push(path);
  return performance.now() - began;
}

/** One measurement in a process of its own. */
async function measured(kind: 'load' | 'llm' | 'vision'): Promise<Measured> {
  const script = fileURLToPath(new URL('full-size-measure.ts', import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, script, kind, llm, vision, JSON.stringify(wishes)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: packageRoot,
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const code = await new Promise<number | null>((done, failed) => child.on('error', failed).on('close', done));
  if (code !== 0) throw new Error(`measuring ${kind} ended with ${code ?? 'a signal'}`);
  return JSON.parse(output) as Measured;
}

const llm = join(folder, `llm-${values.llm}-${llmType}.gguf`);
const vision = join(folder, `vision-vit-g-${visionType}-to-${size.width}.gguf`);

const gb = (bytes: number | undefined): string => (bytes === undefined ? '?' : `${(bytes / 1e9).toFixed(2)} GB`);
const rounded = (value: number, digits = 2): number => Number(value.toFixed(digits));

/** Milliseconds on a core of each thread in one run; undefined where the system does not tell. */
const coreMsOf = ({ runs, use }: Timed) => use && use.coreMs / runs.length / threads;

/**
 * A test as the record has it; `count` things of `unit` were done in it. `onCoreMs` is what a thread had of a core in a run, the mean:
 * about what a run takes where nothing else wants the cores, a little more because threads spin while they wait for each other.
 */
function rate(test: Timed, count: number, unit: string) {
  const { runs, medianMs, use } = test;
  const onCoreMs = coreMsOf(test);
  return {
    medianMs: rounded(medianMs, 1),
    [unit]: rounded((count / medianMs) * 1000, 3),
    runsMs: runs.map((run) => rounded(run, 1)),
    ...(use && onCoreMs
      ? {
          waitedShare: rounded(use.waitedShare, 3),
          disturbed: use.waitedShare > DISTURBED_SHARE,
          onCoreMs: rounded(onCoreMs, 1),
          [`${unit}OnCore`]: rounded((count / onCoreMs) * 1000, 3),
        }
      : {}),
  };
}

/** The path of a new record: one of the same day stays. */
function freeName(start: string): string {
  for (let turn = 1; ; turn++) {
    const path = `${start}${turn > 1 ? `-${turn}` : ''}.json`;
    if (!existsSync(path)) return path;
  }
}

/** Billions of `count` a second on core, where that is known. */
function onCore(name: string, count: number, test: Timed): Record<string, number> {
  const ms = coreMsOf(test);
  return ms ? { [name]: rounded(count / ms / 1e6, 3) } : {};
}

try {
  const llmWriteMs = await made(llm, (path) => writeLlm(values.llm, llmType, path));
  const visionWriteMs = await made(vision, (path) => writeVision(visionType, path, size.width));
  const bandwidth = memoryBench(folder);
  written.push(join(folder, 'memory_bench'));
  const readBefore = bandwidth(threads);

  await measured('load'); // brings the file into the system's cache
  const loads: Measured[] = [];
  for (let turn = 0; turn < wishes.repeat; turn++) loads.push(await measured('load'));
  const language = await measured('llm');
  const readBetween = bandwidth(threads);
  const whole = await measured('vision');
  const readAfter = bandwidth(threads);

  // neighbours on the machine can only take away: what the memory gives is the most that was seen
  const readGBs = Math.max(readBefore.best, readBetween.best, readAfter.best);
  const tokenBytes = bytesPerToken((await addon.readGguf(llm)).tensors);
  const operations = encodingOperations((await addon.readGguf(vision)).tensors);
  const { pp64, pp512, tg32 } = language.tests as Record<'pp64' | 'pp512' | 'tg32', Timed>;
  const { enc, firstToken } = whole.tests as Record<'enc' | 'firstToken', Timed>;
  const tokenGBs = (tokenBytes * 32) / tg32.medianMs / 1e6;
  const shares = [...loads, language, whole].flatMap(({ loadUse, tests }) =>
    [loadUse, ...Object.values(tests).map(({ use }) => use)].map((use) => use?.waitedShare ?? 0),
  );
  const load = loads.map(({ loadMs }) => loadMs).sort((a, b) => a - b);
  const record = {
    date: new Date().toISOString(),
    device: whole.device,
    disturbed: shares.some((share) => share > DISTURBED_SHARE),
    disturbedMeans: `threads waited for a core for more than ${DISTURBED_SHARE * 100} % of their time in some test`,
    files: {
      llm: {
        size: values.llm,
        type: llmType,
        bytes: (await stat(llm)).size,
        writeMs: llmWriteMs === undefined ? null : rounded(llmWriteMs, 0),
      },
      vision: {
        size: 'vit-g',
        type: visionType,
        bytes: (await stat(vision)).size,
        writeMs: visionWriteMs === undefined ? null : rounded(visionWriteMs, 0),
      },
    },
    memoryRead: { unit: 'GB/s', threads, before: readBefore, between: readBetween, after: readAfter },
    llm: {
      loadMs: rounded(load[load.length >> 1]!, 0),
      loadRunsMs: loads.map(({ loadMs }) => rounded(loadMs, 0)),
      loadUse: loads.map(({ loadUse }) => loadUse ?? null),
      memoryAfterLoad: loads[0]?.afterLoad ?? null,
      memoryAtEnd: language.atEnd ?? null,
      owners: language.owners,
      pp64: rate(pp64, 64, 'tokensPerSecond'),
      pp512: rate(pp512, 512, 'tokensPerSecond'),
      tg32: {
        ...rate(tg32, 32, 'tokensPerSecond'),
        bytesPerToken: tokenBytes,
        gigabytesPerSecond: rounded(tokenGBs),
        ...onCore('gigabytesPerSecondOnCore', tokenBytes * 32, tg32),
        shareOfMemoryRead: rounded(tokenGBs / readGBs),
      },
    },
    visionAndLlm: {
      loadMs: rounded(whole.loadMs, 0),
      loadUse: whole.loadUse ?? null,
      memoryAfterLoad: whole.afterLoad ?? null,
      memoryAtEnd: whole.atEnd ?? null,
      owners: whole.owners,
      enc: {
        ...rate(enc, 1, 'imagesPerSecond'),
        operations,
        teraflops: rounded(operations / enc.medianMs / 1e9, 3),
        ...onCore('teraflopsOnCore', operations / 1000, enc),
      },
      firstTokenOfNewPicture: {
        ...rate(firstToken, 1, 'perSecond'),
        what: 'models/example.jpg decoded, encoded, and read in a prompt of 42 + 32 + 16 tokens',
      },
    },
  };

  const today = new Date().toISOString().slice(0, 10);
  const out = values.out ?? freeName(join(packageRoot, 'bench', 'results', `full-size-${today}`));
  const { machine } = await writeRecord(out, record);
  const { llm: l, visionAndLlm: v } = record;
  console.log(
    [
      `${machine.cpu}, ${record.device}; memory read ${readGBs} GB/s${record.disturbed ? '; DISTURBED by other work' : ''}`,
      `load llm    ${(l.loadMs / 1000).toFixed(2)} s, resident ${gb(l.memoryAfterLoad?.resident)}, peak ${gb(l.memoryAtEnd?.peak)}`,
      `load both   ${(v.loadMs / 1000).toFixed(2)} s, resident ${gb(v.memoryAfterLoad?.resident)}, peak ${gb(v.memoryAtEnd?.peak)}`,
      `pp64        ${(64000 / pp64.medianMs).toFixed(2)} tokens/s`,
      `pp512       ${(512000 / pp512.medianMs).toFixed(2)} tokens/s`,
      `tg32        ${(32000 / tg32.medianMs).toFixed(2)} tokens/s, ${tokenGBs.toFixed(2)} GB/s, ${(100 * l.tg32.shareOfMemoryRead).toFixed(0)} % of memory read`,
      `enc         ${enc.medianMs.toFixed(0)} ms, ${v.enc.teraflops} TFLOP/s`,
      `first token ${firstToken.medianMs.toFixed(0)} ms after a new picture`,
      `record: ${out}`,
    ].join('\n'),
  );
} finally {
  if (!values.keep) for (const path of written) await rm(path, { force: true });
  if (!values.keep && !values.folder) await rmdir(folder);
}
