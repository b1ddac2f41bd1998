// What a person sees of a run where it was started: a bar with the newest figures on a terminal, a line a step on a pipe.
import type { MultiBar, SingleBar } from 'cli-progress';
import type { CheckpointEvent, RunFacts, SkipEvent, StepEvent, TrainEvent, ValidationEvent } from './events.js';
import { skipName } from './metrics.js';

/** On a terminal a line of a step stays at most this often; between them the bar tells. */
const MILLISECONDS_BETWEEN_LINES = 10_000;
/** Skipped samples that are told one by one. */
const MOST_TOLD_SKIPS = 20;
/** Characters of an answer. */
const MOST_OF_ANSWER = 100;

export interface Progress {
  /** Told before the first step. */
  start(facts: RunFacts): Promise<void>;
  event(event: TrainEvent): void;
  /** Anything else that should stand among the lines. */
  note(text: string): void;
  /** Ends the bar; the last step, how many samples were skipped and `reason` stay on the screen. */
  close(reason?: string): void;
}

export function openProgress(stream: NodeJS.WritableStream, terminal: boolean): Progress {
  let bars: MultiBar | undefined;
  let bar: SingleBar | undefined;
  let last: StepEvent | undefined;
  let lastLine = { step: 0, time: -Infinity };
  const toldSkips = new Set<string>();
  let skips = 0;

  const line = (text: string) => {
    const shown = `${terminal ? printable(text) : text}\n`;
    if (bars) bars.log(shown);
    else stream.write(shown);
  };
  const stepLine = (event: StepEvent) => {
    lastLine = { step: event.step, time: performance.now() };
    line(describeStep(event));
  };

  function step(event: StepEvent): void {
    last = event;
    skips = Math.max(skips, event.skipped);
    bar?.update(event.step, { figures: describeFigures(event) });
    if (!terminal || performance.now() - lastLine.time >= MILLISECONDS_BETWEEN_LINES) stepLine(event);
  }

  function skip(event: SkipEvent): void {
    if (toldSkips.size >= MOST_TOLD_SKIPS || toldSkips.has(skipName(event))) return;
    toldSkips.add(skipName(event));
    skips = Math.max(skips, toldSkips.size);
    line(`skipped ${oneLine(event.dataset)} ${oneLine(event.name)}: ${oneLine(event.reason)}`);
    if (toldSkips.size === MOST_TOLD_SKIPS)
      line('more skipped samples are only counted here; metrics.jsonl names the first thousand');
  }

  return {
    async start(facts) {
      line(describeRun(facts));
      if (!terminal) return;
      const { MultiBar, Presets } = await import('cli-progress');
      bars = new MultiBar(
        {
          format: '[{bar}] {value}/{total} {figures}',
          barsize: 20,
          clearOnComplete: true,
          stopOnComplete: false,
          gracefulExit: false, // what a signal does is the command's to say
          linewrap: true, // lines between must wrap; the bar's own is cut to the width
          stream,
        },
        Presets.rect,
      );
      bar = bars.create(facts.steps, facts.startStep, { figures: '' });
    },
    event(event) {
      if (event.kind === 'step') step(event);
      else if (event.kind === 'validation') for (const text of describeValidation(event)) line(text);
      else if (event.kind === 'checkpoint') line(describeCheckpoint(event));
      else skip(event);
    },
    note: line,
    close(reason) {
      bars?.update(); // writes the lines that wait
      bars?.stop();
      bars = undefined;
      bar = undefined;
      if (last && last.step > lastLine.step) stepLine(last);
      if (skips > 0) line(`${skips} ${skips === 1 ? 'sample was' : 'samples were'} skipped`);
      if (reason !== undefined) line(`stopped${last ? ` after step ${last.step}` : ''}: ${oneLine(reason)}`);
    },
  };
}

/** Without the characters that could move a terminal's cursor or worse. */
const printable = (text: string): string => text.replace(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/g, '\ufffd');
const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim();

function describeRun({ jobName, model, device, steps, startStep, datasets, folder }: RunFacts): string {
  const data = datasets.map(({ name, pairs }) => (pairs === undefined ? name : `${name} (${pairs} pairs)`)).join(', ');
  const from = startStep > 0 ? `steps ${startStep + 1} to ${steps}` : `${steps} steps`;
  return `${jobName}: ${from} of ${model} on ${device}${data ? ` with ${data}` : ''}, into ${folder}`;
}

/** What the bar has no line of its own for, short: a terminal is narrow. */
function describeFigures(event: StepEvent): string {
  return [
    `loss ${fixed(event.loss)}`,
    `mean ${fixed(event.runningLoss)}`,
    `${short(event.pairsPerSecond)} pairs/s`,
    `${duration(event.eta)} left`,
    ...(event.skipped > 0 ? [`${event.skipped} skipped`] : []),
  ].join(' | ');
}

/** One step on one line. */
export function describeStep(event: StepEvent): string {
  return [
    `step ${event.step}/${event.steps}`,
    `loss ${fixed(event.loss)}`,
    `mean ${fixed(event.runningLoss)}`,
    `gradient ${short(event.gradientNorm)}`,
    `rate ${event.rate.toExponential(2)}`,
    `${short(event.pairsPerSecond)} pairs/s`,
    `${short(event.tokensPerSecond)} tokens/s`,
    `waiting ${percent(event.waiting)}`,
    `vision ${percent(event.vision)}`,
    `${duration(event.eta)} left`,
    ...(event.skipped > 0 ? [`${event.skipped} skipped`] : []),
  ].join('  ');
}

function describeValidation({ step, loss, best, answers }: ValidationEvent): string[] {
  return [
    `validation after step ${step}${loss === undefined ? '' : `: loss ${fixed(loss)}${best ? ', the best so far' : ''}`}`,
    ...answers.map(({ picture, text }) => {
      const answer = oneLine(text);
      const shown = answer.length > MOST_OF_ANSWER ? `${answer.slice(0, MOST_OF_ANSWER)}…` : answer;
      return `  ${oneLine(picture.replace(/^.*\//, ''))}: ${shown}`;
    }),
  ];
}

const describeCheckpoint = ({ step, path }: CheckpointEvent): string => `checkpoint after step ${step}: ${path}`;

const fixed = (value: number): string => value.toFixed(4);
const percent = (share: number): string => `${Math.round(share * 100)} %`;

/** Three digits: 0.0123, 1.23, 12.3, 123, 1234. */
function short(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

/** `45 s`, `12 min 05 s`, `3 h 07 min`, `2 d 04 h`; `?` where the pace is not known yet. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?';
  const s = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${two((s % 86400) / 3600)} h`;
}
