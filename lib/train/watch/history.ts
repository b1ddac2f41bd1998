// What a run's log tells so far, in a size that can be sent to a page.
import { hostname } from 'node:os';
import type { CheckpointEvent, SkipEvent, StepEvent, ValidationEvent } from '../events.js';
import { skipName, type EndLine, type MetricsLine, type RunLine } from '../metrics.js';
import { Series, type Columns } from './series.js';

/** Validations with their answers at most; beyond that every second one is left out. */
const MOST_VALIDATIONS = 400;
/** Names of skipped samples that are sent: the newest. */
const MOST_SKIPS = 50;
/** A run on another machine counts as silent after so many seconds, or so many of its steps, without a line. */
const SILENT = { seconds: 300, steps: 20 };

/**
 * waiting: no line yet; running; finished; stopped: ended early and said so; gone: its process is not there any more; silent: it is on
 * another machine and has written nothing for long.
 */
export type RunState = 'waiting' | 'running' | 'finished' | 'stopped' | 'gone' | 'silent';

type Timed<Event> = Event & { time: string };

export interface Status {
  state: RunState;
  /** Why it stopped. */
  reason?: string;
  started?: string;
  /** Times that it was started. */
  starts: number;
  /** When the last line was written. */
  lastTime?: string;
  latest?: StepEvent;
  best?: { step: number; loss: number };
  checkpoint?: Timed<CheckpointEvent>;
  skipped: number;
  /** The newest ones that are named. */
  skips: Pick<SkipEvent, 'step' | 'dataset' | 'name' | 'reason'>[];
}

export interface SentValidation {
  step: number;
  loss: number | null;
  best: boolean;
  /** `picture`: its place in `pictures`. */
  answers: { picture: number; prompt: string; text: string }[];
}

/** What a page lacks. */
export interface Update {
  /** What the page has is void. */
  reset: boolean;
  /** The server's clock, ISO 8601. */
  now: string;
  status: Status;
  run?: Omit<RunLine, 'kind' | 'pid'>;
  /** Takes the place of the points from `from` on. */
  series?: { from: number; stride: number; columns: Columns };
  validations?: { from: number; list: SentValidation[] };
  pictures?: string[];
}

/** What a page has; the server keeps one for each. */
export interface Seen {
  generation: number;
  points: number;
  lastStep: number;
  validations: number;
  status: string;
  run: RunLine | undefined;
}

export const nothingSeen = (): Seen => ({
  generation: -1,
  points: 0,
  lastStep: 0,
  validations: 0,
  status: '',
  run: undefined,
});

export class History {
  /** Pictures as the log names them, in the order they came. */
  readonly pictures: string[] = [];
  /** Counts what makes everything sent before void. */
  generation: number;
  #run: Timed<RunLine> | undefined;
  #started: string | undefined;
  #starts = 0;
  #lastTime: string | undefined;
  #latest: StepEvent | undefined;
  #series = new Series();
  #validations: SentValidation[] = [];
  #best: Status['best'];
  #checkpoint: Status['checkpoint'];
  #skips = new Map<string, Status['skips'][number]>();
  #end: EndLine | undefined;

  constructor(generation = 0) {
    this.generation = generation;
  }

  /** False for a step that is not after the last one: the log was cut and written on. Such a line is left out. */
  add(line: MetricsLine): boolean {
    if (line.kind === 'step' && this.#latest && line.step <= this.#latest.step) return false;
    this.#lastTime = line.time;
    switch (line.kind) {
      case 'run':
        this.#run = line;
        this.#started ??= line.time;
        this.#starts++;
        this.#end = undefined;
        break;
      case 'step':
        this.#latest = line;
        if (this.#series.push(line)) this.generation++;
        break;
      case 'validation':
        this.#addValidation(line);
        break;
      case 'checkpoint':
        this.#checkpoint = line;
        break;
      case 'skip':
        this.#skips.set(skipName(line), {
          step: line.step,
          dataset: line.dataset,
          name: line.name,
          reason: line.reason,
        });
        break;
      case 'end':
        this.#end = line;
        break;
    }
    return true;
  }

  /** What is new to a page, which `seen` is brought up to date with; undefined: nothing. */
  news(seen: Seen): Update | undefined {
    const reset = seen.generation !== this.generation;
    if (reset) Object.assign(seen, nothingSeen(), { generation: this.generation });
    const now = new Date();
    const update: Update = { reset, now: now.toISOString(), status: this.status(now) };
    const status = JSON.stringify(update.status);
    if (status === seen.status && this.#run === seen.run && this.#validations.length === seen.validations)
      return undefined;
    seen.status = status;
    if (this.#run !== seen.run) {
      seen.run = this.#run;
      const { kind: _, pid: _pid, ...run } = this.#run!;
      update.run = run;
    }
    const lastStep = this.#latest?.step ?? 0;
    if (lastStep !== seen.lastStep) {
      const from = Math.max(0, seen.points - 1); // the last point may have grown
      update.series = { from, stride: this.#series.stride, columns: this.#series.since(from) };
      seen.lastStep = lastStep;
      seen.points = this.#series.length;
    }
    if (this.#validations.length !== seen.validations) {
      update.validations = { from: seen.validations, list: this.#validations.slice(seen.validations) };
      update.pictures = this.pictures;
      seen.validations = this.#validations.length;
    }
    return update;
  }

  status(now: Date): Status {
    const state = this.#state(now);
    const named = [...this.#skips.values()];
    return {
      state,
      ...(this.#end?.reason === undefined ? {} : { reason: this.#end.reason }),
      starts: this.#starts,
      ...(this.#started === undefined ? {} : { started: this.#started }),
      ...(this.#lastTime === undefined ? {} : { lastTime: this.#lastTime }),
      ...(this.#latest ? { latest: this.#latest } : {}),
      ...(this.#best ? { best: this.#best } : {}),
      ...(this.#checkpoint ? { checkpoint: this.#checkpoint } : {}),
      skipped: Math.max(named.length, this.#latest?.skipped ?? 0),
      skips: named.slice(-MOST_SKIPS).reverse(),
    };
  }

  #state(now: Date): RunState {
    if (!this.#run) return 'waiting';
    if (this.#end) return this.#end.state;
    if (this.#run.host === hostname()) return isThere(this.#run.pid) ? 'running' : 'gone';
    const patience = Math.max(SILENT.seconds, SILENT.steps * (this.#latest?.seconds ?? 0));
    return now.getTime() - Date.parse(this.#lastTime!) > patience * 1000 ? 'silent' : 'running';
  }

  #addValidation(line: ValidationEvent): void {
    const loss = Number.isFinite(line.loss) ? line.loss! : null;
    if (loss !== null && (this.#best === undefined || loss < this.#best.loss)) this.#best = { step: line.step, loss };
    const answers = line.answers.map(({ picture, prompt, text }) => ({ picture: this.#place(picture), prompt, text }));
    const validation = { step: line.step, loss, best: line.best, answers };
    // after a resumed run's first step the same validation can stand there twice
    const again = this.#validations.findIndex(({ step }) => step >= line.step);
    if (again >= 0) {
      this.#validations.splice(again, Infinity, validation);
      this.generation++;
    } else this.#validations.push(validation);
    if (this.#validations.length <= MOST_VALIDATIONS) return;
    this.#validations = this.#validations.filter(
      ({ step }, i, all) => i % 2 === 0 || i === all.length - 1 || step === this.#best?.step,
    );
    this.generation++;
  }

  #place(picture: string): number {
    const found = this.pictures.indexOf(picture);
    return found >= 0 ? found : this.pictures.push(picture) - 1;
  }
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0); // asks only
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // somebody else's process
  }
}
