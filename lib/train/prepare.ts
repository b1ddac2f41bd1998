// Everything that a run needs before its first step: configuration, model, trainer, data, folder; or a clear error.
import { dirname, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { addon, type NativeLoadOptions, type NativeModel, type NativeTrainer } from '../addon.js';
import { openFeatureCache, type FeatureCache } from '../data/feature-cache.js';
import { openLoader } from '../data/loader.js';
import type { LoaderOptions } from '../data/options.js';
import type { Loader, SkippedPair } from '../data/pair.js';
import { MiniGptError, abortedError, toMiniGptError } from '../errors.js';
import { makeFolders } from '../formats/make-folders.js';
import { replaceFile } from '../formats/replaced-file.js';
import { embeddedModelPath } from '../model.js';
import { checkVariant } from '../prompt.js';
import { readCheckpoint, type ModelFile, type TrainingCheckpoint } from './checkpoint.js';
import { readConfig, type TrainConfig, type TrainSections } from './config.js';
import { ExampleMaker, type ExampleRules } from './examples.js';
import { FeatureSource } from './features.js';
import { gatherTexts } from './gather.js';
import type { ProcessGroup } from './group.js';
import { checkResume } from './resume.js';
import { checkpointBefore, findCheckpoint, holdRunFolder, makeRunFolder, refuseUsed } from './run-folder.js';
import { checkWidths, firstState, freshProjection, hashModelFiles, projectionFrom } from './start.js';
import type { TrainFacts, TrainOptions } from './train.js';
import { Validation } from './validation.js';

/** Positions that answers to the run's pictures have beside max_txt_len: a prompt and a picture. */
const answerPositions = 1024;
/** What the cache of a run without such answers has: it is never used. */
const fewestPositions = 16;

export interface Prepared {
  config: TrainConfig;
  facts: TrainFacts;
  model: NativeModel;
  trainer: NativeTrainer;
  loader: Loader;
  examples: ExampleMaker;
  features: FeatureSource;
  validation: Validation;
  models: ModelFile[];
  checkpoint: TrainingCheckpoint | undefined;
  /** Held-out pairs that could not be used. */
  skipped: SkippedPair[];
  close(): Promise<void>;
}

/** Errors: those that train() names. */
export async function prepare(
  source: string | TrainSections,
  options: TrainOptions & { group: ProcessGroup },
): Promise<Prepared> {
  const { group, signal } = options;
  const config = await readConfig(source, options.set);
  const notices: string[] = [];
  const checkpoint = await checkpointOf(config, options, notices);
  const opened: { close(): unknown }[] = [];
  const close = async () => {
    for (const one of opened.splice(0).reverse()) await one.close();
  };
  const goOn = () => {
    if (signal?.aborted) throw abortedError(signal);
  };
  try {
    goOn();
    const files = modelFiles(config);
    const context = await contextOf(files);
    const [model, models] = await loadModel(config, files, context, opened);
    goOn();
    checkModel(config, model);
    if (checkpoint) notices.push(...checkResume(checkpoint, config, models, group.size));
    if (config.ignored.length > 0)
      notices.unshift(`keys of the original without a meaning here: ${config.ignored.join(', ')}`);
    const { run } = config;
    const trainer = await model.openTrainer({
      maxRows: run.max_rows,
      beta2: run.beta2,
      weightDecay: run.weight_decay,
    });
    opened.push(trainer);
    await begin(trainer, model, config, checkpoint);
    const rules: ExampleRules = {
      prompts: config.prompts,
      template: config.model.prompt_template,
      endSymbol: config.model.end_sym,
      maxTextLength: config.model.max_txt_len,
    };
    const examples = new ExampleMaker(model, rules, Math.min(run.max_rows, context));
    const cache = await openCache(config, options, model, models);
    if (cache) opened.push(cache);
    const cropped = config.datasets.flatMap(({ name, crop }) => (crop ? [name] : []));
    const features = new FeatureSource(model, run.feature_type, cache, new Set(cropped));
    const data: LoaderOptions = {
      datasets: config.datasets,
      seed: run.seed,
      rank: group.rank,
      worldSize: group.size,
      mix: run.mix,
      readAhead: run.num_workers,
      ...features.lookup(),
      ...(run.max_pixels === undefined ? {} : { maxPixels: run.max_pixels }),
      ...(checkpoint ? { state: checkpoint.state.ranks[group.rank]!.loader } : {}),
    };
    const loader = await openLoader(data).catch((error: unknown) => {
      throw checkpoint ? ofCheckpoint(checkpoint, error) : error;
    });
    opened.push(loader);
    goOn();
    const skipped: SkippedPair[] = [];
    const validation = await Validation.open(
      {
        model,
        trainer,
        group,
        examples,
        features,
        prompt: config.prompts[0],
        endSymbol: config.model.end_sym,
        maxTextLength: config.model.max_txt_len,
        contextLength: model.info().contextLength,
      },
      data,
      run.valid_answers,
      (pair) => skipped.push(pair),
    );
    goOn();
    const folder = await folderOf(config, options, checkpoint, opened);
    const steps = (run.max_epoch * run.iters_per_epoch) / run.accum_grad_iters;
    if (checkpoint?.state.step === steps)
      notices.push(`the run has all its ${steps} steps already; its last checkpoint is ${checkpoint.path}`);
    const facts: TrainFacts = {
      jobName: run.job_name,
      folder,
      device: model.info().device,
      model: files.model,
      steps,
      startStep: checkpoint?.state.step ?? 0,
      datasets: config.datasets.map(({ name }) => {
        const pairs = loader.sizes?.[name];
        return { name, ...(pairs === undefined ? {} : { pairs }) };
      }),
      config: config.resolved,
      notices,
    };
    return {
      config,
      facts,
      model,
      trainer,
      loader,
      examples,
      features,
      validation,
      models,
      checkpoint,
      skipped,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Errors: those of findCheckpoint and readCheckpoint; of a damaged one with the one before it. */
async function checkpointOf(
  { run }: TrainConfig,
  { resume, output }: TrainOptions,
  notices: string[],
): Promise<TrainingCheckpoint | undefined> {
  if (resume === false) return undefined;
  const newest = resume === true || resume === 'latest';
  const named = newest ? (output ?? run.output_dir) : (resume ?? run.resume_ckpt_path);
  if (named === undefined) return undefined;
  const path = await findCheckpoint(named, (notice) => notices.push(notice));
  return readCheckpoint(path).catch(async (error: unknown) => {
    const { code, message } = toMiniGptError(error);
    const before = code === 'ERR_FILE_FORMAT' ? await checkpointBefore(path) : undefined;
    throw before === undefined
      ? error
      : new MiniGptError(code, `${message}; the checkpoint before it is ${before}`, { cause: error });
  });
}

/** An error of opening the data where a checkpoint says they were left, with its name. */
function ofCheckpoint({ path }: TrainingCheckpoint, error: unknown): unknown {
  if (!(error instanceof MiniGptError) || error.code !== 'ERR_ARGUMENT') return error;
  return new MiniGptError(error.code, `${path}: ${error.message}`, { cause: error });
}

interface ModelFiles {
  model: string;
  llm: string | undefined;
  projection: string | undefined;
}

function modelFiles({ model }: TrainConfig): ModelFiles {
  return {
    model: model.path ?? resolve(process.env['MINIGPT4_MODEL'] || embeddedModelPath),
    llm: model.llm,
    projection: model.projection,
  };
}

/** Positions that the language model was made for. */
async function contextOf({ model, llm }: ModelFiles): Promise<number> {
  const path = llm ?? model;
  const { keys } = await addon.readGguf(path);
  const context = keys.find(({ key }) => key === 'llama.context_length')?.value;
  if (typeof context !== 'number')
    throw new MiniGptError('ERR_FILE_FORMAT', `${path}: expected a language model (llama.context_length), found none`);
  return context;
}

async function loadModel(
  { run, model: { max_txt_len: maxTextLength } }: TrainConfig,
  files: ModelFiles,
  context: number,
  opened: { close(): unknown }[],
): Promise<[NativeModel, ModelFile[]]> {
  const wanted = run.valid_answers.length > 0 ? answerPositions + maxTextLength : fewestPositions;
  const request: NativeLoadOptions = {
    model: files.model,
    device: run.device,
    contextLength: Math.min(wanted, context),
    ...(files.llm === undefined ? {} : { llm: files.llm }),
    ...(files.projection === undefined ? {} : { projection: files.projection }),
    ...(run.threads === undefined ? {} : { threads: run.threads }),
    ...(run.vision_device === undefined ? {} : { visionDevice: run.vision_device }),
    ...(run.gpu_memory === undefined ? {} : { gpuMemory: run.gpu_memory }),
    ...(run.image_batch === undefined ? {} : { imageBatch: run.image_batch }),
  };
  const loading = addon.loadModel(request).then((model) => {
    opened.push(model);
    return model;
  });
  const [model, models] = await Promise.allSettled([
    loading,
    // the projection is in the checkpoint
    hashModelFiles({ model: files.model, 'language model': files.llm }),
  ]);
  if (model.status === 'rejected') throw model.reason;
  if (models.status === 'rejected') throw models.reason;
  return [model.value, models.value];
}

/** Whether the configuration was written for such a model. Errors: ERR_ARGUMENT, ERR_UNSUPPORTED. */
function checkModel(config: TrainConfig, model: NativeModel): void {
  const { variant, imageSize } = model.info();
  checkVariant(variant);
  const { model_type: type, max_txt_len: longest, end_sym: end } = config.model;
  const wrong = (key: string, why: string): never => {
    throw new MiniGptError('ERR_ARGUMENT', `${config.source}: ${key}: ${why}`);
  };
  if (type !== undefined && type.includes('llama2') !== variant.includes('llama2'))
    wrong('model.model_type', `expected the type of the model, which is a ${variant}, found ${type}`);
  for (const [name, size] of Object.entries(config.imageSizes)) {
    if (size !== imageSize)
      wrong(`datasets.${name}.vis_processor.train.image_size`, `expected ${imageSize}, the model's, found ${size}`);
  }
  const tokens = model.encode(end, true).length;
  if (longest <= tokens)
    wrong('model.max_txt_len', `expected more than ${tokens}, the tokens of end_sym, found ${longest}`);
}

async function openCache(
  { run }: TrainConfig,
  { group, onWarning }: TrainOptions & { group: ProcessGroup },
  model: NativeModel,
  models: readonly ModelFile[],
): Promise<FeatureCache | undefined> {
  if (run.feature_cache === undefined) return undefined;
  const { imageTokens, projectionInput } = model.info();
  return openFeatureCache({
    folder: run.feature_cache,
    modelHash: models[0]!.sha256,
    values: imageTokens * projectionInput,
    type: run.feature_type,
    rank: group.rank,
    ...(onWarning ? { onProblem: onWarning } : {}),
  });
}

/** Puts the trainer where the run begins. */
async function begin(
  trainer: NativeTrainer,
  model: NativeModel,
  config: TrainConfig,
  checkpoint: TrainingCheckpoint | undefined,
): Promise<void> {
  const info = model.info();
  if (checkpoint) {
    checkWidths(`the checkpoint ${checkpoint.path}`, checkpoint, info);
    await trainer.restore(checkpoint.trainer);
    return;
  }
  const { ckpt, init } = config.model;
  if (ckpt !== undefined) await trainer.restore(firstState(await projectionFrom(ckpt, info)));
  else if (init === 'fresh') await trainer.restore(firstState(freshProjection(info, config.run.seed)));
}

/** The first process makes the folder, and writes down what the run is; the others are told where it is. */
async function folderOf(
  config: TrainConfig,
  { output, group }: TrainOptions & { group: ProcessGroup },
  checkpoint: TrainingCheckpoint | undefined,
  opened: { close(): unknown }[],
): Promise<string> {
  let folder = '';
  if (group.rank === 0) {
    const given = output === undefined ? undefined : resolve(output);
    const before = checkpoint && dirname(resolve(checkpoint.path));
    folder = given ?? before ?? (await makeRunFolder(config.run.output_dir, new Date()));
    await makeFolders(folder);
    opened.push({ close: await holdRunFolder(folder) });
    if (folder === given && given !== before) await refuseUsed(folder);
    await replaceFile(join(folder, 'config.yaml'), [Buffer.from(stringify(config.resolved))]);
  }
  return (await gatherTexts(group, folder))[0]!;
}
