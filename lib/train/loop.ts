// The steps of a run: batches, gradients, rates, and what is written and told between them.
import { join, resolve } from 'node:path';
import type { NativeBatchLoss, NativeTrainingSample } from '../addon.js';
import type { Batch } from '../data/pair.js';
import { MiniGptError, abortedError, toMiniGptError } from '../errors.js';
import { Random } from '../random.js';
import { forgetAnswersAfter, noteAnswers } from './answers.js';
import { writeCheckpoint, type RunState } from './checkpoint.js';
import type { CheckpointEvent, SkipEvent, StepEvent, TrainEvent, ValidationEvent } from './events.js';
import { gatherTexts } from './gather.js';
import type { ProcessGroup } from './group.js';
import type { Prepared } from './prepare.js';
import { checkpointName, point, removeOld } from './run-folder.js';
import { learningRate } from './schedule.js';

/** Steps that the running loss is the mean of, and that the pace to the end is measured over. */
const lately = 50;
/** Steps' batches in a row without a usable pair, after which the data are to blame. */
const mostEmpty = 100;
/** Pairs that an error names. */
const namedPairs = 16;

/** A rank's place in the data, and the state of its draws: what a checkpoint has by rank. */
type Place = RunState['ranks'][number];

/** A step's sums on this process, then on all. */
interface Sums {
  loss: number;
  targets: number;
  pairs: number;
  rows: number;
  skipped: number;
  cut: number;
  /** Processes whose caller wants to end. */
  leaving: number;
}

export class TrainingLoop {
  readonly #run: Prepared;
  readonly #group: ProcessGroup;
  readonly #signal: AbortSignal | undefined;
  /** Why the run ends before its last step; its reason is a MiniGptError. */
  readonly #ended = new AbortController();
  readonly #state: RunState;
  readonly #prompts: Random;
  readonly #seconds: number[] = [];
  /** Where the state as it is now lies on the disk; undefined after each change of it. */
  #saved: string | undefined;
  /** What the caller has not been told yet. */
  #untold: TrainEvent[] = [];

  constructor(run: Prepared, options: { group: ProcessGroup; signal?: AbortSignal }) {
    this.#run = run;
    this.#group = options.group;
    this.#signal = options.signal;
    const { checkpoint, config, models } = run;
    const { rank, size } = this.#group;
    const own = (at: number): Place => ({
      loader: rank === at ? run.loader.state() : null,
      prompts: new Random(config.run.seed, 'prompt', at).state,
    });
    this.#state = checkpoint
      ? { ...checkpoint.state, config: config.plain, models }
      : {
          step: 0,
          config: config.plain,
          models,
          ranks: Array.from({ length: size }, (_, at) => own(at)),
          losses: [],
          skipped: 0,
          cut: 0,
        };
    this.#prompts = Random.fromState(this.#state.ranks[rank]!.prompts);
    this.#saved = checkpoint && resolve(checkpoint.path);
  }

  /** The run, told as it goes. Throws what train() names; whatever ends it, the model is closed at the end. */
  async *events(): AsyncGenerator<TrainEvent, void, void> {
    const stopListening = this.#listen();
    let over = false;
    try {
      if (!this.#run.checkpoint) this.#state.ranks = await this.#gatherPlaces();
      for (const skipped of this.#run.skipped) yield { kind: 'skip', step: this.#state.step, ...skipped };
      const { steps } = this.#run.facts;
      yield* await this.#beforeSteps();
      while (this.#state.step < steps) {
        const leaving = await this.#step();
        yield* this.#told();
        await this.#afterStep(leaving);
        yield* this.#told();
        if (leaving) throw abortedError(this.#signal);
      }
      over = true;
    } catch (error) {
      over = true;
      const failure = this.#ended.signal.aborted ? (this.#ended.signal.reason as MiniGptError) : toMiniGptError(error);
      // a step that was stopped begins anew when the run goes on, and passes over the same pairs
      yield* this.#told().filter(({ kind }) => kind !== 'skip' || failure.code !== 'ERR_ABORTED');
      const { event, told } = await this.#rescue(failure);
      if (event) yield event;
      throw told;
    } finally {
      // a caller that leaves its loop loses nothing either
      try {
        if (!over) await this.#save();
      } finally {
        stopListening();
        await this.#run.close();
      }
    }
  }

  /** Ends the work within a layer when the caller wants to (alone), or when another process is gone. */
  #listen(): () => void {
    const end = (reason: MiniGptError) => {
      if (this.#ended.signal.aborted) return;
      this.#ended.abort(reason);
      this.#run.trainer.abort();
    };
    this.#group.failed.catch((error: unknown) => end(toMiniGptError(error)));
    const signal = this.#signal;
    if (!signal || this.#group.size > 1) return () => {};
    const abort = () => end(abortedError(signal));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    return () => signal.removeEventListener('abort', abort);
  }

  /** The promise's outcome, or why the run ends as soon as that is known. */
  async #until<Value>(promise: Promise<Value>): Promise<Value> {
    const { signal } = this.#ended;
    let stop = () => {};
    const ended = new Promise<never>((_, reject) => {
      stop = () => reject(signal.reason as MiniGptError);
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
    });
    promise.catch(() => {}); // heard below, unless the run has ended before it
    try {
      return await Promise.race([promise, ended]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  #told(): TrainEvent[] {
    return this.#untold.splice(0);
  }

  /** What is left to do of the checkpoint's own step: a run can be stopped between it and its validation. */
  async #beforeSteps(): Promise<TrainEvent[]> {
    const { checkpoint, facts } = this.#run;
    const { step, validated, bestStep } = this.#state;
    const unfinished = checkpoint !== undefined && step > 0 && this.#isValidated() && validated !== step;
    const own = checkpoint && resolve(checkpoint.path) === join(facts.folder, checkpointName(step));
    if (this.#group.rank === 0) {
      await forgetAnswersAfter(facts.folder, unfinished ? step - 1 : step);
      if (own && bestStep === step) await point(facts.folder, 'best', step);
    }
    if (unfinished) await this.#afterStep(false);
    else if (checkpoint && step === facts.steps && this.#group.rank === 0)
      return [{ kind: 'checkpoint', step, path: resolve(checkpoint.path) }];
    return this.#told();
  }

  /** Whether a validation belongs to the step that was done last. */
  #isValidated(): boolean {
    const { step } = this.#state;
    const { validation, config, facts } = this.#run;
    return !validation.empty && (step % config.run.valid_every === 0 || step === facts.steps);
  }

  /** One step of AdamW, on all processes alike. Returns whether one of them wants to end. */
  async #step(): Promise<boolean> {
    const { config, trainer, facts } = this.#run;
    const { run } = config;
    const state = this.#state;
    const times = { waiting: 0, vision: 0 };
    const begun = performance.now();
    const names: string[] = [];
    let sums: Sums;
    let places: Place[];
    let dataset = '';
    let skippedPairs = 0;
    for (let empty = 0; ; empty++) {
      const own: Sums = { loss: 0, targets: 0, pairs: 0, rows: 0, skipped: 0, cut: 0, leaving: 0 };
      for (let part = 0; part < run.accum_grad_iters; part++) {
        const batch = await this.#timed(times, 'waiting', this.#run.loader.next());
        const { samples, names: batchNames, skipped, cut } = await this.#samples(batch, times);
        for (const one of skipped) this.#untold.push({ kind: 'skip', step: state.step, ...one });
        names.push(...batchNames);
        dataset = dataset === '' || dataset === batch.dataset ? batch.dataset : 'mixed';
        const loss = await this.#until(trainer.accumulate(samples));
        own.loss += loss.loss;
        own.targets += loss.targets;
        own.pairs += samples.length;
        own.rows += samples.reduce((sum, sample) => sum + sample.ids.length, 0);
        own.skipped += skipped.length;
        own.cut += cut;
        this.#checkFinite(loss, batchNames);
      }
      own.leaving = this.#group.size > 1 && this.#signal?.aborted ? 1 : 0;
      sums = await this.#sumsOf(own);
      places = await this.#gatherPlaces();
      skippedPairs += sums.skipped;
      if (sums.targets > 0) break;
      if (empty + 1 >= mostEmpty) throw this.#nothingUsable(mostEmpty * run.accum_grad_iters, skippedPairs);
    }
    if (this.#group.size > 1) await this.#sumGradient(sums.targets);
    // the rate of the step's last batch, as the original sets it before every batch
    const rate = learningRate(run, (state.step + 1) * run.accum_grad_iters - 1);
    // waited for whatever else happens: it cannot be stopped, and a step that is done must be counted
    const { gradientNorm } = await trainer.apply({ rate, maxNorm: run.max_grad_norm }).catch((error: unknown) => {
      throw this.#named(error, names);
    });
    // from here on the step is done: nothing between these lines can fail
    this.#saved = undefined;
    state.step++;
    state.ranks = places;
    state.skipped += skippedPairs;
    state.cut += sums.cut;
    const loss = sums.loss / sums.targets;
    state.losses = [...state.losses, loss].slice(-lately);
    const seconds = (performance.now() - begun) / 1000;
    this.#seconds.push(seconds);
    if (this.#seconds.length > lately) this.#seconds.shift();
    const step: StepEvent = {
      kind: 'step',
      step: state.step,
      steps: facts.steps,
      epoch: Math.floor(((state.step - 1) * run.accum_grad_iters) / run.iters_per_epoch) + 1,
      loss,
      runningLoss: mean(state.losses),
      gradientNorm,
      rate,
      pairs: sums.pairs,
      tokens: sums.rows,
      targets: sums.targets,
      pairsPerSecond: sums.pairs / seconds,
      tokensPerSecond: sums.rows / seconds,
      seconds,
      waiting: Math.min(1, times.waiting / seconds),
      vision: Math.min(1, times.vision / seconds),
      eta: (facts.steps - state.step) * mean(this.#seconds),
      dataset,
      skipped: state.skipped,
      cut: state.cut,
    };
    this.#untold.push(step);
    return sums.leaving > 0;
  }

  #nothingUsable(batches: number, pairs: number): MiniGptError {
    const first = this.#untold.find((event) => event.kind === 'skip');
    const why = first ? `, the first of them ${first.name} (${first.dataset}): ${first.reason}` : '';
    return new MiniGptError(
      'ERR_FILE_FORMAT',
      `${batches} batches in a row have no pair that can be used: ${pairs} pairs were passed over${why}`,
    );
  }

  /** What the model gets of a batch; pairs that it cannot take are passed over. */
  async #samples(
    batch: Batch,
    times: { vision: number },
  ): Promise<{
    samples: NativeTrainingSample[];
    names: string[];
    skipped: Omit<SkipEvent, 'kind' | 'step'>[];
    cut: number;
  }> {
    const { examples, features } = this.#run;
    const prompt = examples.prompts > 0 ? this.#prompts.below(examples.prompts) : 0;
    const skipped = batch.skipped.map(({ dataset, name, reason }) => ({ dataset, name, reason }));
    const usable = batch.pairs.flatMap((pair) => {
      const example = examples.usable(pair, prompt);
      if (!('reason' in example)) return [{ pair, example }];
      skipped.push({ dataset: pair.dataset, name: pair.name, reason: example.reason });
      return [];
    });
    const made = await this.#timed(times, 'vision', features.ofPairs(usable.map(({ pair }) => pair)));
    const samples = usable.map(({ example: { ids, targets } }, i) => ({ ids, targets, features: made[i]! }));
    const names = usable.map(({ pair }) => pair.name);
    return { samples, names, skipped, cut: usable.filter(({ example }) => example.cut).length };
  }

  async #timed<Key extends string, Value>(
    times: Record<Key, number>,
    key: Key,
    promise: Promise<Value>,
  ): Promise<Value> {
    const begun = performance.now();
    try {
      return await this.#until(promise);
    } finally {
      times[key] += (performance.now() - begun) / 1000;
    }
  }

  /** Error: ERR_NAN_LOSS with the pairs whose loss is no number. */
  #checkFinite({ loss, losses }: NativeBatchLoss, names: readonly string[]): void {
    if (Number.isFinite(loss)) return;
    const guilty = names.filter((_, i) => !Number.isFinite(losses[i]));
    throw this.#named(
      new MiniGptError('ERR_NAN_LOSS', `expected a finite loss, found ${loss}`),
      guilty.length > 0 ? guilty : names,
    );
  }

  /** ERR_NAN_LOSS with the pairs of its batch; any other error as it is. */
  #named(error: unknown, names: readonly string[]): unknown {
    if (!(error instanceof MiniGptError) || error.code !== 'ERR_NAN_LOSS') return error;
    const more = names.length > namedPairs ? ` and ${names.length - namedPairs} more` : '';
    return new MiniGptError(
      'ERR_NAN_LOSS',
      `step ${this.#state.step + 1}: ${error.message}; its pairs: ${names.slice(0, namedPairs).join(', ')}${more}`,
      { cause: error },
    );
  }

  async #sumsOf(own: Sums): Promise<Sums> {
    const keys = Object.keys(own) as (keyof Sums)[];
    const all = await this.#until(this.#group.sumNumbers(keys.map((key) => own[key])));
    return Object.fromEntries(keys.map((key, i) => [key, all[i]!])) as unknown as Sums;
  }

  async #sumGradient(targets: number): Promise<void> {
    const { trainer } = this.#run;
    const { weight, bias } = await this.#until(trainer.gradient());
    const own = new Float32Array(weight.length + bias.length);
    own.set(weight);
    own.set(bias, weight.length);
    const sum = await this.#until(this.#group.sum(own));
    await trainer.setGradient({ weight: sum.slice(0, weight.length), bias: sum.slice(weight.length), targets });
  }

  /** Where every process stands in its data. */
  async #gatherPlaces(): Promise<Place[]> {
    const own: Place = { loader: this.#run.loader.state(), prompts: this.#prompts.state };
    if (this.#group.size === 1) return [own];
    const texts = await this.#until(gatherTexts(this.#group, JSON.stringify(own)));
    return texts.map((text) => JSON.parse(text) as Place);
  }

  /** Validation and checkpoint where the step asks for them, and at the end. */
  async #afterStep(leaving: boolean): Promise<void> {
    const { step } = this.#state;
    if (!leaving && this.#isValidated()) await this.#validate();
    const last = step === this.#run.facts.steps;
    const best = this.#state.bestStep === step;
    if (leaving || last || best || step % this.#run.config.run.checkpoint_every === 0) {
      const event = await this.#save();
      if (event) this.#untold.push(event);
    }
  }

  async #validate(): Promise<void> {
    const { validation, facts } = this.#run;
    const { step } = this.#state;
    const loss = await this.#until(validation.loss());
    const best = loss !== undefined && loss < (this.#state.best ?? Infinity);
    const answers = await this.#until(validation.answers());
    if (this.#group.rank === 0) await noteAnswers(facts.folder, { step, loss, answers });
    this.#saved = undefined;
    this.#state.validated = step;
    if (best) Object.assign(this.#state, { best: loss, bestStep: step });
    const event: ValidationEvent = { kind: 'validation', step, ...(loss === undefined ? {} : { loss }), best, answers };
    this.#untold.push(event);
  }

  /** Writes the state after the last whole step, once; the first process does it, unless it is gone (`orphaned`). */
  async #save(orphaned = false): Promise<CheckpointEvent | undefined> {
    const { step } = this.#state;
    // before the first step nothing is learned that a checkpoint could keep
    if (this.#saved !== undefined || step === 0 || (this.#group.rank !== 0 && !orphaned)) return undefined;
    const { folder } = this.#run.facts;
    const path = join(folder, checkpointName(step));
    const trained = await this.#run.trainer.state();
    if (trained.step !== step)
      throw new MiniGptError('ERR_INTERNAL', `the trainer stands at step ${trained.step}, the run at ${step}`);
    await writeCheckpoint(path, trained, this.#state);
    await point(folder, 'latest', step);
    if (this.#state.bestStep === step) await point(folder, 'best', step);
    this.#saved = path;
    if (!orphaned) await removeOld(folder, this.#run.config.run.keep, step);
    return { kind: 'checkpoint', step, path };
  }

  /** The checkpoint that a failure leaves behind, and the failure with where that is, or why there is none. */
  async #rescue(failure: MiniGptError): Promise<{ event?: CheckpointEvent; told: MiniGptError }> {
    // all processes have the same state, and files are renamed into place: it does no harm that several write it
    const orphaned =
      this.#group.rank !== 0 && failure.code === 'ERR_COLLECTIVE' && failure.message.startsWith('rank 0 ');
    if (this.#group.rank !== 0 && !orphaned) return { told: failure };
    const told = (words: string) => new MiniGptError(failure.code, `${failure.message} (${words})`, { cause: failure });
    const { step } = this.#state;
    try {
      const event = await this.#save(orphaned);
      if (this.#saved === undefined) return { told: failure };
      const state = told(`the state after step ${step} is in ${this.#saved}`);
      return event ? { event, told: state } : { told: state };
    } catch (error) {
      const { message } = toMiniGptError(error);
      // where the checkpoint itself is what failed, once is enough
      return { told: failure.message === message ? failure : told(`no checkpoint was written: ${message}`) };
    }
  }
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
