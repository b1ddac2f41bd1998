// `minigpt4 bench`: how fast a model encodes pictures (enc), reads prompts (pp) and writes answers (tg) on this machine.
import { cpus } from 'node:os';
import { basename } from 'node:path';
import type { Command } from 'commander';
import type { GgufTensorInfo, NativeLoadOptions, NativeModel, NativeModelInfo } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { generateGreedy } from '../generate.js';
import { checkLoad } from '../load-options.js';
import { addModelFlags, flagOf, inFlags, jsonLine, modelFlags, parseNumber, type ModelFlags } from './program.js';
import { loadingProgress } from './terminal.js';

type Flags = ModelFlags & { prompt: number; generate: number; repeat: number; json?: boolean };

/** One measured thing: all times in ms, and what the median means. */
interface Measurement {
  test: string;
  runs: number[];
  medianMs: number;
  perSecond: number;
  unit: 'images/s' | 'tokens/s';
  /** Bytes of weights that one token reads, times tokens a second. */
  gigabytesPerSecond?: number;
}

export function register(program: Command): void {
  const command = program
    .command('bench')
    .summary('measure a model on this machine')
    .description(
      'Measures encoding a picture (enc), reading a prompt of N tokens (ppN) and writing N tokens (tgN), and gives medians.',
    );
  addModelFlags(command)
    .option('--prompt <n>', 'tokens of the prompt', parseNumber, 512)
    .option('--generate <n>', 'tokens to write', parseNumber, 128)
    .option('--repeat <n>', 'times that each is measured', parseNumber, 5)
    .option('--json', 'one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 bench
  $ minigpt4 bench --model vicuna-7b-q4_k.gguf --threads 4 --prompt 128 --generate 32 --repeat 3 --json`,
    )
    .action(bench);
}

async function bench(flags: Flags, command: Command): Promise<void> {
  checkLoad(modelFlags(flags), 'bench', flagOf);
  for (const name of ['prompt', 'generate', 'repeat'] as const) {
    const least = name === 'generate' ? 2 : 1; // decoding is timed between tokens
    if (!Number.isInteger(flags[name]) || flags[name] < least) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `bench: option --${name}: expected a whole number from ${least}, found ${flags[name]}`,
      );
    }
  }
  const [{ addon }, { embeddedModelPath }] = await Promise.all([import('../addon.js'), import('../model.js')]);
  // a language model alone can be measured too
  const files =
    flags.model === undefined && flags.llm !== undefined
      ? []
      : [flags.model ?? (process.env['MINIGPT4_MODEL'] || embeddedModelPath)];
  const path = flags.llm ?? files[0]!;
  const { done, ...progress } = loadingProgress(path);
  const loadAt = performance.now();
  const model = await addon
    .loadModel({
      ...modelFlags(flags),
      ...(files[0] === undefined ? {} : { model: files[0] }),
      ...progress,
    } as NativeLoadOptions)
    .catch(inFlags)
    .finally(done);
  const loadMs = performance.now() - loadAt;
  try {
    const info = model.info();
    const tokenBytes = bytesPerToken((await addon.readGguf(path)).tensors);
    // defaults that do not fit the context are measured smaller, and named so; what was asked for is not
    const asked = (name: 'prompt' | 'generate') => command.getOptionValueSource(name) === 'cli';
    const room = info.contextLength;
    const generate = asked('generate')
      ? flags.generate
      : Math.max(2, Math.min(flags.generate, Math.floor(room / 2), asked('prompt') ? room - flags.prompt : room));
    const prompt = asked('prompt') ? flags.prompt : Math.max(1, Math.min(flags.prompt, room - generate));
    if (prompt + generate > room) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `bench: expected a --prompt and a --generate that fit the context of ${room} positions together, ` +
          `found ${prompt} and ${generate}; --context-length sets it, up to the model's own`,
      );
    }
    const results = [
      ...(files.length > 0 ? [await measureImage(model, info.imageSize, flags.repeat)] : []),
      await measurePrompt(model, info.vocabulary, prompt, flags.repeat),
      await measureTokens(model, info.vocabulary, generate, flags.repeat, tokenBytes),
    ];
    const machine = {
      cpu: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      platform: process.platform,
      arch: process.arch,
      cpuLevels: addon.cpuLevels(),
    };
    const memory = memoryOf(model.info());
    const { name, device, gpuLayers, visionDevice } = info;
    if (flags.json) {
      const memoryBytes = memory.gpu + memory.host;
      const computing = { device, gpuLayers, visionDevice, machine };
      process.stdout.write(jsonLine({ model: name, path, ...computing, loadMs, memoryBytes, memory, results }));
    } else {
      const on = onCpu(info) ? `${machine.cpu} (${device})` : device;
      print(
        `${name || basename(path)} on ${on}: loaded in ${(loadMs / 1000).toFixed(2)} s, holds ${told(memory)}`,
        results,
      );
    }
  } finally {
    await model.close();
  }
}

const onCpu = ({ device }: NativeModelInfo): boolean => /^cpu\b/.test(device);

/** Bytes in the GPU's memory and in the machine's. Beside a GPU, the report marks what the CPU holds. */
function memoryOf(info: NativeModelInfo): { gpu: number; host: number } {
  const sum = { gpu: 0, host: 0 };
  for (const { owner, bytes } of info.memory) sum[onCpu(info) || owner.endsWith(' (CPU)') ? 'host' : 'gpu'] += bytes;
  return sum;
}

function told({ gpu, host }: { gpu: number; host: number }): string {
  const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  if (gpu === 0) return mebibytes(host);
  return `${mebibytes(gpu)} of the GPU's memory${host === 0 ? '' : ` and ${mebibytes(host)} of the machine's`}`;
}

/** Weights that one decoded token reads: everything of the language model but the embedding table, of which it reads one row. */
function bytesPerToken(tensors: GgufTensorInfo[]): number {
  const tied = !tensors.some(({ name }) => name === 'output.weight');
  const isRead = (name: string) =>
    name.startsWith('blk.') || name.startsWith('output') || (tied && name === 'token_embd.weight');
  return tensors.filter(({ name }) => isRead(name)).reduce((sum, { bytes }) => sum + bytes, 0);
}

function summary(test: string, runs: number[], count: number, unit: Measurement['unit']): Measurement {
  const sorted = [...runs].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const medianMs = sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return { test, runs, medianMs, perSecond: (count / medianMs) * 1000, unit };
}

/** Each measurement once more before it counts, for caches and clocks. */
async function repeated(times: number, once: (turn: number) => Promise<number>): Promise<number[]> {
  await once(0);
  const runs: number[] = [];
  for (let turn = 1; turn <= times; turn++) runs.push(await once(turn));
  return runs;
}

async function measureImage(model: NativeModel, size: number, times: number): Promise<Measurement> {
  const rgb = new Uint8Array(size * size * 3).map((_, i) => (i * 31 + (i >> 7) * 17) & 255);
  return summary(
    'enc',
    await repeated(times, async () => (await model.encodeImage(rgb, size, size)).encodeMs),
    1,
    'images/s',
  );
}

/** Ids that differ from turn to turn from the first one on, so that no cached beginning helps. */
function someIds(count: number, vocabulary: number, turn: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => 3 + ((turn * 7919 + i * 104729) % Math.max(1, vocabulary - 3)));
}

async function measurePrompt(
  model: NativeModel,
  vocabulary: number,
  count: number,
  times: number,
): Promise<Measurement> {
  const runs = await repeated(
    times,
    async (turn) => (await generateGreedy(model, [{ ids: someIds(count, vocabulary, turn) }], 1)).prefillMs,
  );
  return summary(`pp${count}`, runs, count, 'tokens/s');
}

async function measureTokens(
  model: NativeModel,
  vocabulary: number,
  count: number,
  times: number,
  tokenBytes: number,
): Promise<Measurement> {
  // the first token comes from the prompt's own pass
  const runs = await repeated(
    times,
    async (turn) => (await generateGreedy(model, [{ ids: someIds(1, vocabulary, turn) }], count)).decodeMs,
  );
  const result = summary(`tg${count}`, runs, count - 1, 'tokens/s');
  return { ...result, gigabytesPerSecond: (result.perSecond * tokenBytes) / 1e9 };
}

function print(head: string, results: Measurement[]): void {
  const lines = [
    head,
    `${'test'.padEnd(8)}${'median'.padStart(12)}${'rate'.padStart(22)}${'weights read'.padStart(16)}`,
  ];
  for (const { test, medianMs, perSecond, unit, gigabytesPerSecond } of results) {
    lines.push(
      test.padEnd(8) +
        `${medianMs.toFixed(1)} ms`.padStart(12) +
        `${perSecond.toFixed(1)} ${unit}`.padStart(22) +
        (gigabytesPerSecond === undefined ? '' : `${gigabytesPerSecond.toFixed(2)} GB/s`).padStart(16),
    );
  }
  process.stdout.write(`${lines.join('\n')}\n`);
}
