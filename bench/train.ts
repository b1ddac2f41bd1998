// How fast the projection is trained: steps of both stages on the miniature world, on a synthetic 1.1B and one of a synthetic Vicuna 7B, in
// pairs and TFLOP/s, with the memory they take above the weights; beside them the same steps in PyTorch. Writes a record into bench/results/.
//
//   node --import tsx bench/train.ts [WORLD] [--python PYTHON] [--only miniature,1.1b,7b] [--torch-7b] [--repeat 5] [--threads N]
//                                    [--folder FOLDER] [--keep] [--out FILE.json]
//
// WORLD (default: MINIGPT4_DATA) is the miniature world's folder; without one that part is left out. PYTHON is an interpreter with torch;
// without one there is no peer. Each program runs in a process of its own, and they take steps in turn. 7B needs about 5 GB
// of disk and, by estimate, 12 GB of memory (with --torch-7b 20 GB; PyTorch at 1.1b in float32 may take as much).
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, rmdir, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { addon, packageRoot } from '../lib/addon.js';
import { DISTURBED_SHARE, memoryNow, threadTimes, threadUse, type ThreadUse } from '../lib/bench/machine.js';
import { writeRecord } from './record.js';
import { middle, rounded } from '../lib/bench/measured-test.js';
import { LLMS } from '../lib/bench/synthetic.js';
import { miniatureCase, operationsOf, syntheticCase, type Case } from './train-cases.js';

const parts = ['miniature', ...Object.keys(LLMS)];
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    only: { type: 'string', default: 'miniature,1.1b,7b' },
    'torch-7b': { type: 'boolean', default: false },
    repeat: { type: 'string', default: '5' },
    threads: { type: 'string' },
    folder: { type: 'string' },
    keep: { type: 'boolean', default: false },
    out: { type: 'string' },
  },
});
const only = values.only.split(',');
for (const part of only)
  if (!parts.includes(part)) throw new Error(`--only: expected some of ${parts.join(', ')}, found ${part}`);
const world = positionals[0] ?? (process.env['MINIGPT4_DATA'] || undefined);
const threads = values.threads === undefined ? availableParallelism() : Number(values.threads);
const repeat = Number(values.repeat);
if (!Number.isInteger(threads) || threads < 1 || !Number.isInteger(repeat) || repeat < 1)
  throw new Error('--threads and --repeat: expected whole numbers from 1');

const folder = values.folder ? resolve(values.folder) : await mkdtemp(join(tmpdir(), 'minigpt4-bench-train-'));
await mkdir(folder, { recursive: true });
/** Removed at the end; what was there before stays. */
const written = new Set<string>();

/** Writes a file unless it is there. */
async function made(path: string, write: (path: string) => Promise<void>): Promise<void> {
  if (existsSync(path)) return;
  if (path.endsWith('.gguf')) console.log(`writing ${path}`);
  written.add(path);
  await write(path);
}

// ---------------------------------------------------------------- programs that take steps

interface Step {
  ms: number;
  loss: number;
  /** What its threads did meanwhile. */
  use: ThreadUse | undefined;
}

/** A process that takes a step for each line 'step', until there are no more. */
class Runner {
  readonly title: string;
  weightBytes = 0;
  device = '';
  /** The most that was resident of its own at a look, files that it maps left out. */
  peak = 0;
  readonly steps: Step[] = [];
  readonly #child;
  readonly #lines: AsyncIterator<string>;

  constructor(title: string, program: string, words: string[]) {
    this.title = title;
    this.#child = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'], cwd: packageRoot });
    this.#child.stdin.on('error', () => {}); // its end is seen where its answer is missing
    this.#child.on('error', (error) => console.error(`${program}: ${error.message}`));
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async ready(): Promise<void> {
    const { weightBytes, device } = await this.#answer<{ weightBytes: number; device: string }>();
    this.weightBytes = weightBytes;
    this.device = device;
  }

  async step(): Promise<Step> {
    const before = threadTimes(this.#child.pid);
    this.#child.stdin.write('step\n');
    const { ms, loss } = await this.#answer<{ ms: number; loss: number }>();
    return { ms, loss, use: threadUse(before, this.#child.pid) };
  }

  async end(): Promise<{ owner: string; bytes: number; peak: number }[]> {
    this.#child.stdin.end();
    const { owners } = await this.#answer<{ owners: { owner: string; bytes: number; peak: number }[] }>();
    await new Promise<void>((done) => (this.#child.exitCode === null ? this.#child.on('close', done) : done()));
    return owners;
  }

  kill(): void {
    this.#child.kill();
  }

  /** Its next line; meanwhile its memory is looked at twenty times a second. */
  async #answer<T>(): Promise<T> {
    const look = (): void => {
      const now = this.#child.pid === undefined ? undefined : memoryNow(this.#child.pid);
      this.peak = Math.max(this.peak, now?.own ?? 0);
    };
    const timer = setInterval(look, 50);
    try {
      const line = await this.#lines.next();
      if (line.done) throw new Error(`${this.title} ended before it answered`);
      return JSON.parse(line.value) as T;
    } finally {
      look();
      clearInterval(timer);
    }
  }
}

/** Takes minutes a step, and more memory than most machines have as float32: one step, and a peer only when it is asked for. */
const isLarge = ({ name }: Case): boolean => /^(7b|13b)/.test(name);

const scriptOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

function runnersOf(wanted: Case, file: string): Runner[] {
  const ours = [...process.execArgv, scriptOf('train-measure.ts'), file, JSON.stringify({ threads })];
  const runners = [new Runner('minigpt4', process.execPath, ours)];
  const large = isLarge(wanted);
  const types = !values.python || (large && !values['torch-7b']) ? [] : large ? ['bfloat16'] : ['float32', 'bfloat16'];
  for (const dtype of types) {
    const wishes = JSON.stringify({ threads, dtype });
    runners.push(new Runner(`torch ${dtype}`, values.python!, [scriptOf('train_torch.py'), file, wishes]));
  }
  return runners;
}

// ---------------------------------------------------------------- measuring

/** A runner's steps as the record has them. `onCoreMs`: what a thread had of a core in a step, the mean of all. */
function told(runner: Runner, wanted: Case, operations: number) {
  const { steps, title, device, weightBytes, peak } = runner;
  const medianMs = middle(steps.map(({ ms }) => ms));
  const uses = steps.flatMap(({ use }) => (use ? [use] : []));
  const onCoreMs = uses.length ? middle(uses.map(({ coreMs }) => coreMs)) / threads : undefined;
  return {
    program: title,
    device,
    loss: steps[0]!.loss,
    medianMs: rounded(medianMs, 1),
    runsMs: steps.map(({ ms }) => rounded(ms, 1)),
    pairsPerSecond: rounded((wanted.samples.length / medianMs) * 1000),
    teraflops: rounded(operations / medianMs / 1e9, 4),
    ...(onCoreMs === undefined
      ? {}
      : {
          waitedShare: rounded(middle(uses.map(({ waitedShare }) => waitedShare))),
          disturbed: uses.some(({ waitedShare }) => waitedShare > DISTURBED_SHARE),
          onCoreMs: rounded(onCoreMs, 1),
          pairsPerSecondOnCore: rounded((wanted.samples.length / onCoreMs) * 1000),
          teraflopsOnCore: rounded(operations / onCoreMs / 1e9, 4),
        }),
    ...(wanted.visionMs === undefined || title !== 'minigpt4'
      ? {}
      : {
          visionMsPerPicture: rounded(wanted.visionMs, 2),
          pairsPerSecondWithVision: rounded(1000 / (medianMs / wanted.samples.length + wanted.visionMs)),
        }),
    weightBytes,
    peakBytes: peak,
    peakAboveWeightsBytes: peak - weightBytes,
  };
}

async function measure(wanted: Case) {
  const { name, stage, samples } = wanted;
  const file = join(folder, 'case.json');
  written.add(file);
  await writeFile(file, JSON.stringify(wanted));
  const once = isLarge(wanted);
  const runners = runnersOf(wanted, file);
  try {
    for (const runner of runners) await runner.ready();
    if (!once) for (const runner of runners) await runner.step(); // threads, scratch memory and clocks
    for (let turn = 0; turn < (once ? 1 : repeat); turn++)
      for (const runner of runners) runner.steps.push(await runner.step());
    const [owners] = await Promise.all(runners.map((runner) => runner.end()));
    const operations = operationsOf(wanted);
    const programs = runners.map((runner) => told(runner, wanted, operations));
    const rows = samples.reduce((sum, { ids }) => sum + ids.length, 0);
    const targets = samples.reduce((sum, sample) => sum + sample.targets.filter((id) => id >= 0).length, 0);
    for (const { program, medianMs, pairsPerSecond, teraflops, peakAboveWeightsBytes, loss } of programs) {
      console.log(
        `${name}, stage ${stage}, ${samples.length} pairs, ${rows} rows: ${program.padEnd(14)} ${medianMs} ms, ${pairsPerSecond} pairs/s, ` +
          `${teraflops} TFLOP/s, ${(peakAboveWeightsBytes / 1e9).toFixed(2)} GB above the weights, loss ${loss.toFixed(4)}`,
      );
    }
    const { check } = wanted;
    return {
      model: name,
      stage,
      pairs: samples.length,
      rows,
      targets,
      ...(check && { check }),
      operations,
      programs,
      owners,
    };
  } finally {
    for (const runner of runners) runner.kill();
  }
}

// ---------------------------------------------------------------- all of it

/** TFLOP/s of float32 multiply-adds, each counted as two, by the threads together. */
async function computeLimit() {
  const passes = 9;
  const { fma } = await addon.measureMachine({ threads, bytes: 2 ** 24, passes });
  return { threads, median: rounded(fma.median / 1e12), best: rounded(fma.best / 1e12) };
}

/** The path of a new record: one of the same day stays. */
function freeName(start: string): string {
  for (let turn = 1; ; turn++) {
    const path = `${start}${turn > 1 ? `-${turn}` : ''}.json`;
    if (!existsSync(path)) return path;
  }
}

try {
  for (const name of [1, 2].flatMap((stage) =>
    ['gguf', 'f32', 'safetensors'].map((end) => `miniature-${stage}.${end}`),
  ))
    if (!existsSync(join(folder, name))) written.add(join(folder, name));
  const limits = [await computeLimit()];
  const results: Awaited<ReturnType<typeof measure>>[] = [];
  for (const part of only) {
    if (part === 'miniature' && world === undefined) {
      console.log('miniature: left out, expected its folder as an argument or in MINIGPT4_DATA');
      continue;
    }
    for (const stage of [1, 2] as const) {
      const wanted =
        part === 'miniature'
          ? await miniatureCase(world!, stage, folder, threads)
          : await syntheticCase(part, 'q4_0', stage, folder, made);
      results.push(await measure(wanted));
      limits.push(await computeLimit());
    }
  }
  const today = new Date().toISOString().slice(0, 10);
  const out = values.out ?? freeName(join(packageRoot, 'bench', 'results', `train-${today}`));
  // neighbours on the machine can only take away: the limit is the most that was seen
  const limit = Math.max(...limits.map(({ best }) => best));
  const shared = results.map(({ programs, ...result }) => ({
    ...result,
    programs: programs.map((program) => ({ ...program, shareOfLimit: rounded(program.teraflops / limit) })),
  }));
  await writeRecord(out, {
    threads,
    disturbedMeans: `threads waited for a core for more than ${DISTURBED_SHARE * 100} % of their time in some step`,
    computeLimit: { unit: 'TFLOP/s of float32 multiply-adds', best: limit, runs: limits },
    results: shared,
  });
  console.log(`the machine's float32 multiply-adds: ${limit} TFLOP/s`);
  console.log(`record: ${out}`);
} finally {
  if (!values.keep) for (const path of written) await rm(path, { force: true });
  if (!values.keep && !values.folder) await rmdir(folder);
}
