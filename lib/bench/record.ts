// What a run of the benchmark found, and how it is written as JSON.
import type { NativeMachineRates } from '../addon.js';
import type { describeMachine } from './machine.js';
import { DISTURBED_SHARE } from './machine.js';
import type { Run } from './measured-process.js';
import { middle, rounded, significant } from './measured-test.js';

/** Of several runs: times, and the shares of their time that the threads did not get. */
export interface Times {
  medianMs: number;
  bestMs: number;
  worstMs: number;
  runs: number;
  /** Waiting for a core, and kept by the host; left out where the system does not tell. */
  waitedShare?: number;
  stolenShare?: number;
  /** Either is above the record's `disturbedAbove`. */
  disturbed: boolean;
}

/** Which program measured which file, and how. */
export interface Subject {
  /** A size of synthetic.ts: '7b', 'vit-g'. */
  model: string;
  type: string;
  /** 'minigpt4', or a peer's name. */
  program: string;
  /** Of ours; a peer chooses for itself. */
  level?: string;
  threads: number;
}

/** Names of limits: what a rate is a share of. */
export type LimitName = 'read' | 'fma' | 'dot' | 'tileInt8' | 'tileBf16';

/** As tables call them. */
export const LIMIT_NAMES: Record<LimitName, string> = {
  read: 'memory read',
  fma: 'float32 multiply-adds',
  dot: 'int8 products',
  tileInt8: 'int8 tiles',
  tileBf16: 'bf16 tiles',
};

export interface Result extends Subject, Times {
  test: string;
  perSecond: number;
  unit: string;
  gigabytesPerSecond?: number;
  teraflops?: number;
  limit?: LimitName;
  shareOfLimit?: number;
  /** Programs of one file that were loaded together and took their runs in turn have the same number. */
  round: number;
}

/** With one core kept busy by another process, in turn with runs without. */
export interface BusyResult extends Subject {
  test: string;
  quietPerSecond: number;
  busyPerSecond: number;
  share: number;
  runs: number;
  /** Of the quiet runs as of any other; of the busy ones only what the host kept, as their threads are meant to wait. */
  disturbed: boolean;
}

export interface Loading extends Subject {
  fileBytes: number;
  warm: Times;
  /** After the file was put out of the system's cache; left out where the system cannot. */
  cold?: Times;
  /** The most that was resident, files that it maps included: after loading, and after all tests. */
  loadedPeakBytes?: number;
  peakBytes?: number;
  /** Of its own when loaded. */
  ownBytes?: number;
  /** Milliseconds that another process took to touch as much memory, or what was unused of it, right before each load. */
  touchedMs?: number[];
}

/** GB/s read and TFLOP/s (TOP/s of int8): best and median of several passes. */
export interface Limits extends Partial<Record<LimitName, { best: number; median: number }>> {
  level: string;
  threads: number;
  waitedShare?: number;
  disturbed: boolean;
}

export interface BenchRecord {
  date: string;
  machine: ReturnType<typeof describeMachine>;
  threads: number;
  /** `program version` of each peer that took part. */
  peers: Record<string, string>;
  disturbedAbove: number;
  seconds: number;
  limits: Limits[];
  results: Result[];
  loads: Loading[];
  busy: BusyResult[];
  /** What was left out, a line each. */
  skipped: string[];
}

export function timesOf(runs: Run[]): Times {
  const times = runs.map(({ ms }) => ms);
  const share = (name: 'waitedShare' | 'stolenShare'): Partial<Record<typeof name, number>> => {
    const known = runs.filter((run) => run[name] !== undefined);
    if (known.length === 0) return {};
    const lost = known.reduce((sum, run) => sum + run[name]! * run.ms, 0);
    return { [name]: rounded(lost / known.reduce((sum, { ms }) => sum + ms, 0), 3) };
  };
  const [waited, stolen] = [share('waitedShare'), share('stolenShare')];
  return {
    medianMs: rounded(middle(times), 2),
    bestMs: rounded(Math.min(...times), 2),
    worstMs: rounded(Math.max(...times), 2),
    runs: runs.length,
    ...waited,
    ...stolen,
    disturbed: isDisturbed(waited.waitedShare) || isDisturbed(stolen.stolenShare),
  };
}

export const isDisturbed = (share: number | undefined): boolean => (share ?? 0) > DISTURBED_SHARE;

export function limitsOf(rates: NativeMachineRates): Limits {
  const scaled = (rate: { best: number; median: number }, unit: number) => ({
    best: significant(rate.best / unit),
    median: significant(rate.median / unit),
  });
  return {
    level: rates.level,
    threads: rates.threads,
    read: scaled(rates.read, 1e9),
    fma: scaled(rates.fma, 1e12),
    ...(rates.dot && { dot: scaled(rates.dot, 1e12) }),
    ...(rates.tileInt8 && { tileInt8: scaled(rates.tileInt8, 1e12) }),
    ...(rates.tileBf16 && { tileBf16: scaled(rates.tileBf16, 1e12) }),
    ...(rates.waitedShare === undefined ? {} : { waitedShare: rounded(rates.waitedShare, 3) }),
    disturbed: isDisturbed(rates.waitedShare),
  };
}

/** A peer has no level of ours: it is compared with all that the machine has. */
export const limitsFor = (subject: Subject, limits: readonly Limits[]): Limits | undefined =>
  limits.find(({ level, threads }) => threads === subject.threads && level === (subject.level ?? limits[0]!.level));

/** Puts in its share of the best that the machine did. */
export function setShare(result: Result, limits: readonly Limits[]): void {
  const limit = result.limit && limitsFor(result, limits)?.[result.limit];
  const rate = result.gigabytesPerSecond ?? result.teraflops;
  if (limit && rate !== undefined) result.shareOfLimit = rounded(rate / limit.best, 3);
}

/** Of two times that limits were taken the better: neighbours can only take away. */
export const betterLimits = (before: Limits, after: Limits): Limits => {
  const quieter = (after.waitedShare ?? 0) < (before.waitedShare ?? 0) ? after : before;
  const better = { ...quieter };
  for (const name of Object.keys(LIMIT_NAMES) as LimitName[]) {
    const [one, other] = [before[name], after[name]];
    if (one && other) better[name] = one.best > other.best ? one : other;
  }
  return better;
};

/** The same program, file, level and threads. */
export const sameSubject = (a: Subject, b: Subject): boolean =>
  a.model === b.model && a.type === b.type && a.program === b.program && a.level === b.level && a.threads === b.threads;

/** Of the repository's format check. */
const PRINT_WIDTH = 120;

/** JSON as the repository's format check accepts it: an object's properties a line each, plain values of an array in one line. */
export function recordText(record: object): string {
  /** `beside`: characters before the value in its line, and a comma after it. */
  const text = (value: unknown, indent: string, beside: number): string => {
    if (typeof value !== 'object' || value === null) return JSON.stringify(value);
    const inner = `${indent}  `;
    if (Array.isArray(value)) {
      if (value.length === 0) return '[]';
      const parts = value.map((each) => text(each, inner, inner.length + 1));
      const line = `[${parts.join(', ')}]`;
      const plain = value.every((each) => typeof each !== 'object');
      return plain && beside + line.length <= PRINT_WIDTH
        ? line
        : `[\n${inner}${parts.join(`,\n${inner}`)}\n${indent}]`;
    }
    const entries = Object.entries(value).filter(([, each]) => each !== undefined);
    if (entries.length === 0) return '{}';
    const lines = entries.map(([key, each], i) => {
      const start = `${inner}${JSON.stringify(key)}: `;
      return start + text(each, inner, start.length + (i < entries.length - 1 ? 1 : 0));
    });
    return `{\n${lines.join(',\n')}\n${indent}}`;
  };
  return `${text(record, '', 0)}\n`;
}
