// Asks a model about every scene of a folder, once with each projection, and judges its greedy answers.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { abortedError, MiniGptError } from '../errors.js';
import { readProjection, writeProjectionGguf, type Projection } from '../export.js';
import { embeddedModelPath, MiniGPT4 } from '../model.js';
import { freshProjection } from '../train/start.js';
import { objectNames } from './object-names.js';
import { readScenes, type AskedScene } from './scene-files.js';
import { nameFinder, scoreAnswer, summarise, type Score, type Summary } from './scenes.js';

/** Tokens of an answer at most. */
const MOST_TOKENS = 90;
/** Questions under way at once: they share passes through the language model, which changes no answer. */
const AT_ONCE = 8;
/** Of the projection that nothing was trained of. */
const UNTRAINED_SEED = 42;

export interface SceneEvaluation {
  /** The folder with scenes.json and scenes/. */
  folder: string;
  /** Default: the environment's MINIGPT4_MODEL, or else the embedded miniature. */
  model?: string;
  /** Whatever readProjection takes, each asked all questions. Default: the model's own projection. */
  projections?: readonly string[];
  /** Also a projection that was never trained, first. */
  untrained?: boolean;
  /** So many scenes of each style at most, the first ones. */
  limit?: number;
  /** One style's scenes alone. */
  only?: string;
  threads?: number;
  signal?: AbortSignal;
  /** Told after every answer. */
  onProgress?: (done: number, total: number, projection: string) => void;
}

export interface SceneAnswer extends Score {
  file: string;
  prompt: string;
  text: string;
}

/** One projection's part of the table. */
export interface SceneResult {
  projection: string;
  /** By style. */
  summaries: Summary[];
  answers: SceneAnswer[];
}

/**
 * Errors: those of readScenes, readProjection and MiniGPT4.load, ERR_ARGUMENT (no scene is left by `only`), ERR_IMAGE, ERR_ABORTED.
 * Temporary files are removed, whatever happens.
 */
export async function evaluateScenes(options: SceneEvaluation): Promise<SceneResult[]> {
  const { signal, onProgress } = options;
  const all = await readScenes(options.folder);
  const scenes = chosen(all, options);
  const find = nameFinder([...objectNames, ...all.flatMap(({ objects }) => objects.map(({ name }) => name))]);
  const model = options.model ?? (process.env['MINIGPT4_MODEL'] || embeddedModelPath);
  const folder = await mkdtemp(join(tmpdir(), 'minigpt4-eval-'));
  try {
    const rows = await planRows(model, folder, options);
    const results: SceneResult[] = [];
    for (const { name, projection } of rows) {
      if (signal?.aborted) throw abortedError(signal);
      const loaded = await MiniGPT4.load({
        model,
        ...(projection === undefined ? {} : { projection }),
        ...(options.threads === undefined ? {} : { threads: options.threads }),
      });
      try {
        let done = results.length * scenes.length;
        const answers = await askAll(scenes, signal, async (scene) => {
          const answer = await ask(loaded, scene, find, signal);
          onProgress?.(++done, rows.length * scenes.length, name);
          return answer;
        });
        results.push({ projection: name, summaries: summarise(answers), answers });
      } finally {
        await loaded.close();
      }
    }
    return results;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function chosen(all: readonly AskedScene[], { only, limit, folder }: SceneEvaluation): AskedScene[] {
  const taken = new Map<string, number>();
  const scenes = all.filter(({ style }) => {
    if (only !== undefined && style !== only) return false;
    const before = taken.get(style) ?? 0;
    taken.set(style, before + 1);
    return limit === undefined || before < limit;
  });
  if (scenes.length > 0) return scenes;
  const styles = [...new Set(all.map(({ style }) => style))].join(', ');
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `${folder} has scenes of the styles ${styles}; found none of ${only ?? 'them'} to ask about`,
  );
}

/** What each row of the table is called, and the projection file to load; undefined: the model's own. Everything is read before the first answer. */
async function planRows(
  model: string,
  folder: string,
  { projections = [], untrained = false, signal }: SceneEvaluation,
): Promise<{ name: string; projection: string | undefined }[]> {
  const rows: { name: string; projection: string | undefined }[] = [];
  const add = async (name: string, projection: Projection): Promise<void> => {
    const path = join(folder, `${rows.length}.gguf`);
    await writeProjectionGguf(path, projection, { model, signal });
    rows.push({ name, projection: path });
  };
  if (untrained) await add('untrained', untrainedLike(await readProjection(model)));
  for (const path of projections) await add(rowName(path), await readProjection(path, undefined, signal));
  if (rows.length === 0) rows.push({ name: basename(model), projection: undefined });
  return rows;
}

/** What tells files of several runs apart: `RUN/best` as it was given, of other paths the last part. */
const rowName = (path: string): string =>
  /^(best|latest|checkpoint-.*)$/.test(basename(path))
    ? join(basename(dirname(resolve(path))), basename(path))
    : basename(path);

/** As PyTorch's linear layers begin. */
function untrainedLike(projection: Projection): Projection {
  const { input, output } = projection;
  return { ...projection, ...freshProjection({ projectionInput: input, width: output }, UNTRAINED_SEED) };
}

/** The answers in the scenes' order, AT_ONCE at a time. The first failure ends all. */
async function askAll(
  scenes: readonly AskedScene[],
  signal: AbortSignal | undefined,
  work: (scene: AskedScene) => Promise<SceneAnswer>,
): Promise<SceneAnswer[]> {
  const answers = new Array<SceneAnswer>(scenes.length);
  let next = 0;
  let failed = false;
  const worker = async (): Promise<void> => {
    while (next < scenes.length && !failed) {
      if (signal?.aborted) throw abortedError(signal);
      const i = next++;
      try {
        answers[i] = await work(scenes[i]!);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  // all have ended before the first failure is told, so that the model can be closed
  const ends = await Promise.allSettled(Array.from({ length: AT_ONCE }, worker));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  return answers;
}

async function ask(
  model: MiniGPT4,
  scene: AskedScene,
  find: (text: string) => Set<string>,
  signal: AbortSignal | undefined,
): Promise<SceneAnswer> {
  const { text, finishReason } = await model.describe(scene.picture, {
    prompt: scene.prompt,
    temperature: 0,
    maxTokens: MOST_TOKENS,
    ...(signal === undefined ? {} : { signal }),
  });
  const finished = finishReason === 'stop' || finishReason === 'eos';
  return { file: scene.file, prompt: scene.prompt, text, ...scoreAnswer(scene, { text, finished }, find) };
}
