// metrics.jsonl of a run's folder: one JSON object a line, first what the run is, then every event with its time, at last how it ended.
import { constants, existsSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import type { MiniGptError } from '../errors.js';
import type { RunFacts, TrainEvent } from './events.js';
import { LogFile } from './log-file.js';
import { LineCutter } from './log-lines.js';

export const METRICS_FILE = 'metrics.jsonl';

/** Skipped samples that are written with their names; of those after them the steps tell the number. */
const MOST_NAMED_SKIPS = 1000;

/** The run as its log's first line has it; a run that was resumed has one for each time. */
export interface RunLine extends RunFacts {
  kind: 'run';
  /** The process that trains, to tell whether it is still there. */
  pid: number;
  host: string;
}

/** The last line of a run that ended as it should; one that was killed has none. */
export interface EndLine {
  kind: 'end';
  step: number;
  state: 'finished' | 'stopped';
  /** Why it stopped before its last step. */
  reason?: string;
}

/** `time`: when it was written, ISO 8601 in UTC. Numbers that are not finite are null. */
export type MetricsLine = (RunLine | TrainEvent | EndLine) & { time: string };

export interface MetricsLog {
  /** What was done to a file that was there, for the user; undefined: nothing to tell. */
  readonly note: string | undefined;
  event(event: TrainEvent): void;
  /** Resolves with the number of lines that could not be written. */
  close(end: EndLine): Promise<number>;
}

const isText = (value: unknown): boolean => typeof value === 'string';
const isAnswer = (value: unknown): boolean => {
  const { picture, prompt, text } = (value ?? {}) as Record<string, unknown>;
  return [picture, prompt, text].every(isText);
};

/** What a line of each kind has at least, so that its readers need not ask. */
const shapes: Record<MetricsLine['kind'], (line: Record<string, unknown>) => boolean> = {
  run: (line) => Array.isArray(line['datasets']) && Number.isInteger(line['startStep']),
  step: (line) => Number.isInteger(line['step']) && Number.isInteger(line['steps']),
  validation: (line) =>
    Number.isInteger(line['step']) && Array.isArray(line['answers']) && line['answers'].every(isAnswer),
  checkpoint: (line) => Number.isInteger(line['step']) && isText(line['path']),
  skip: (line) => Number.isInteger(line['step']) && ['dataset', 'name', 'reason'].every((key) => isText(line[key])),
  end: (line) => Number.isInteger(line['step']) && isText(line['state']),
};

/** One line of the log; undefined for what is none (a torn line, something foreign). */
export function parseMetricsLine(text: string): MetricsLine | undefined {
  let line: Record<string, unknown> | null;
  try {
    line = JSON.parse(text) as Record<string, unknown> | null;
  } catch {
    return undefined; // the answer to a line that is no JSON
  }
  if (typeof line !== 'object' || line === null || !isText(line['time'])) return undefined;
  const kind = String(line['kind']);
  return Object.hasOwn(shapes, kind) && shapes[kind as MetricsLine['kind']](line)
    ? (line as unknown as MetricsLine)
    : undefined;
}

/**
 * Opens the log of `folder`, which must be there, and writes the run's line. A log from before goes on: lines of steps beyond facts.startStep
 * and a torn last line are cut off. A run from the beginning puts a log with steps aside as metrics.1.jsonl and so on.
 * Errors: those of opening; failures later are told to `onTrouble`, once.
 */
export async function openMetrics(
  facts: RunFacts,
  folder: string,
  onTrouble: (error: MiniGptError) => void,
): Promise<MetricsLog> {
  const path = join(folder, METRICS_FILE);
  let before = await scan(path, facts.startStep);
  let note: string | undefined;
  if (facts.startStep === 0 && before.steps) {
    const aside = freeName(folder);
    await rename(path, aside);
    before = { end: 0, steps: false, cut: 0, skips: new Set() };
    note = `the log of an earlier run in this folder is now ${basename(aside)}`;
  } else if (before.cut > 0) {
    note = `${before.cut} lines of ${METRICS_FILE} after step ${facts.startStep} are cut off: the run goes on from there`;
  }
  const { skips } = before;
  const file = await LogFile.open(path, constants.O_RDWR | constants.O_CREAT, before.end, onTrouble);
  const write = ({ kind, ...rest }: RunLine | TrainEvent | EndLine) =>
    file.append(Buffer.from(`${json({ kind, time: new Date().toISOString(), ...rest })}\n`));
  write({ kind: 'run', ...facts, pid: process.pid, host: hostname() });
  return {
    note,
    event(event) {
      if (event.kind === 'skip') {
        const name = skipName(event);
        if (skips.has(name) || skips.size >= MOST_NAMED_SKIPS) return;
        skips.add(name);
      }
      write(event);
    },
    async close(end) {
      write(end);
      return file.close();
    },
  };
}

/** One name for a sample, however often it is met. */
export const skipName = ({ dataset, name }: { dataset: string; name: string }): string => `${dataset}\n${name}`;

const json = (value: unknown): string =>
  JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part));

interface Before {
  /** Bytes that stay. */
  end: number;
  /** Whether the file has steps at all. */
  steps: boolean;
  /** Whole lines that do not stay. */
  cut: number;
  /** Samples named in what stays. */
  skips: Set<string>;
}

/** What a log holds up to `lastStep`. */
async function scan(path: string, lastStep: number): Promise<Before> {
  const before: Before = { end: 0, steps: false, cut: 0, skips: new Set() };
  let handle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return before;
    throw error;
  }
  try {
    const cutter = new LineCutter();
    let keeping = true;
    for await (const chunk of handle.createReadStream({ autoClose: false })) {
      for (const text of cutter.push(chunk as Buffer)) {
        const line = parseMetricsLine(text);
        if (line?.kind === 'step') before.steps = true;
        if (line && line.kind !== 'run' && line.step > lastStep) keeping = false;
        if (!keeping) before.cut++;
        else before.end = cutter.offset;
        if (keeping && line?.kind === 'skip') before.skips.add(skipName(line));
      }
    }
  } finally {
    await handle.close();
  }
  return before;
}

function freeName(folder: string): string {
  for (let n = 1; ; n++) {
    const path = join(folder, `metrics.${n}.jsonl`);
    if (!existsSync(path)) return path;
  }
}
