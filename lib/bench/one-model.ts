// One model of the user's: how fast it encodes pictures (enc), reads prompts (pp) and writes answers (tg) on this machine.
import { cpus } from 'node:os';
import { addon, type NativeLoadOptions, type NativeModel, type NativeModelInfo } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { generateGreedy } from '../generate.js';
import { bytesPerToken } from './operations.js';
import { middle, someIds } from './measured-test.js';

/** One measured thing: all times in ms, and what the median means. */
export interface Measurement {
  test: string;
  runs: number[];
  medianMs: number;
  perSecond: number;
  unit: 'images/s' | 'tokens/s';
  /** Bytes of weights that one token reads, times tokens a second. */
  gigabytesPerSecond?: number;
}

export interface ModelReport {
  model: string;
  path: string;
  device: string;
  gpuLayers: number;
  visionDevice: 'cpu' | 'gpu';
  machine: { cpu: string; cores: number; platform: string; arch: string; cpuLevels: string[] };
  loadMs: number;
  memoryBytes: number;
  memory: { gpu: number; host: number };
  results: Measurement[];
}

/** How many tokens, and whether the user asked for just that many: what was not asked for is made to fit the context. */
interface Count {
  count: number;
  asked: boolean;
}

export interface ModelWishes {
  prompt: Count;
  generate: Count;
  repeat: number;
  onLoaded(): void;
}

/** Errors: as loadModel; ERR_ARGUMENT: prompt and generate do not fit the context together. */
export async function measureModel(
  load: NativeLoadOptions,
  { prompt, generate, repeat, onLoaded }: ModelWishes,
): Promise<ModelReport> {
  const path = load.llm ?? load.model!;
  const loadAt = performance.now();
  const model = await addon.loadModel(load);
  onLoaded();
  const loadMs = performance.now() - loadAt;
  try {
    const info = model.info();
    const tokenBytes = bytesPerToken((await addon.readGguf(path)).tensors);
    const counts = fitted(prompt, generate, info.contextLength);
    const results = [
      ...(load.model === undefined ? [] : [await measureImage(model, info.imageSize, repeat)]),
      await measurePrompt(model, info.vocabulary, counts.prompt, repeat),
      await measureTokens(model, info.vocabulary, counts.generate, repeat, tokenBytes),
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
    const computing = { device, gpuLayers, visionDevice, machine };
    return { model: name, path, ...computing, loadMs, memoryBytes: memory.gpu + memory.host, memory, results };
  } finally {
    await model.close();
  }
}

/** Defaults that do not fit the context are measured smaller, and named so; what was asked for is not. */
function fitted(prompt: Count, generate: Count, room: number): { prompt: number; generate: number } {
  const written = generate.asked
    ? generate.count
    : Math.max(2, Math.min(generate.count, Math.floor(room / 2), prompt.asked ? room - prompt.count : room));
  const read = prompt.asked ? prompt.count : Math.max(1, Math.min(prompt.count, room - written));
  if (read + written > room) {
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `bench: expected a --prompt and a --generate that fit the context of ${room} positions together, ` +
        `found ${read} and ${written}; --context-length sets it, up to the model's own`,
    );
  }
  return { prompt: read, generate: written };
}

export const onCpu = (device: string): boolean => /^cpu\b/.test(device);

/** Bytes in the GPU's memory and in the machine's. Beside a GPU, the report marks what the CPU holds; pages of a file are the machine's anywhere. */
function memoryOf({ device, memory }: NativeModelInfo): { gpu: number; host: number } {
  const sum = { gpu: 0, host: 0 };
  for (const { owner, bytes } of memory)
    sum[onCpu(device) || / \((?:CPU|mapped)\)$/.test(owner) ? 'host' : 'gpu'] += bytes;
  return sum;
}

function summary(test: string, runs: number[], count: number, unit: Measurement['unit']): Measurement {
  const medianMs = middle(runs);
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

const ids = (count: number, vocabulary: number, turn: number): { ids: Int32Array } => ({
  ids: Int32Array.from(someIds(count, vocabulary, turn)),
});

async function measurePrompt(
  model: NativeModel,
  vocabulary: number,
  count: number,
  times: number,
): Promise<Measurement> {
  const runs = await repeated(
    times,
    async (turn) => (await generateGreedy(model, [ids(count, vocabulary, turn)], 1)).prefillMs,
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
    async (turn) => (await generateGreedy(model, [ids(1, vocabulary, turn)], count)).decodeMs,
  );
  const result = summary(`tg${count}`, runs, count - 1, 'tokens/s');
  return { ...result, gigabytesPerSecond: (result.perSecond * tokenBytes) / 1e9 };
}
