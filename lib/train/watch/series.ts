// The curves of a run in a bounded number of points, however many steps it has.
import type { StepEvent } from '../events.js';

/** Points at most; a page is some 1500 pixels wide. */
const MOST_POINTS = 4096;

type Number = number | null;
type Fold = (values: number[]) => number;

const last: Fold = (values) => values.at(-1)!;
const mean: Fold = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const least: Fold = (values) => Math.min(...values);
const most: Fold = (values) => Math.max(...values);

/** What a point tells of the steps it stands for: spikes must stay visible, speeds are means. */
const columns = {
  step: { of: (event: StepEvent) => event.step, fold: last },
  loss: { of: (event: StepEvent) => event.loss, fold: mean },
  lossLow: { of: (event: StepEvent) => event.loss, fold: least },
  lossHigh: { of: (event: StepEvent) => event.loss, fold: most },
  runningLoss: { of: (event: StepEvent) => event.runningLoss, fold: last },
  gradientNorm: { of: (event: StepEvent) => event.gradientNorm, fold: most },
  rate: { of: (event: StepEvent) => event.rate, fold: last },
  pairsPerSecond: { of: (event: StepEvent) => event.pairsPerSecond, fold: mean },
  tokensPerSecond: { of: (event: StepEvent) => event.tokensPerSecond, fold: mean },
  waiting: { of: (event: StepEvent) => event.waiting, fold: mean },
  vision: { of: (event: StepEvent) => event.vision, fold: mean },
};

export type ColumnName = keyof typeof columns;
const names = Object.keys(columns) as ColumnName[];

/** Values of points side by side; null where a step has none that is finite. */
export type Columns = Record<ColumnName, Number[]>;

export class Series {
  /** Steps that a point stands for: 1, 2, 4, … */
  stride = 1;
  #points = emptyColumns();
  /** Steps of the last point, which grows until it has `stride`. */
  #open: StepEvent[] = [];

  get length(): number {
    return this.#points.step.length;
  }

  /** Whether the points from before changed, too: their number was halved. */
  push(event: StepEvent): boolean {
    const full = this.#open.length === 0 || this.#open.length === this.stride;
    const halved = full && this.length === MOST_POINTS;
    if (halved) this.#halve();
    if (full) this.#open = [];
    this.#open.push(event);
    const at = full ? this.length : this.length - 1;
    for (const name of names) this.#points[name][at] = fold(name, this.#open.map(columns[name].of));
    return halved;
  }

  /** The points from number `from` on, with five digits. */
  since(from: number): Columns {
    const part = emptyColumns();
    for (const name of names) {
      const values = this.#points[name].slice(from);
      part[name] = name === 'step' ? values : values.map((value) => (value === null ? null : fiveDigits(value)));
    }
    return part;
  }

  #halve(): void {
    for (const name of names) {
      const values = this.#points[name];
      this.#points[name] = Array.from({ length: values.length / 2 }, (_, i) =>
        fold(name, values.slice(2 * i, 2 * i + 2)),
      );
    }
    this.stride *= 2;
  }
}

function fold(name: ColumnName, values: Number[]): Number {
  const finite = values.filter((value): value is number => Number.isFinite(value));
  return finite.length === 0 ? null : columns[name].fold(finite);
}

const fiveDigits = (value: number): number => Number(value.toPrecision(5));

function emptyColumns(): Columns {
  return Object.fromEntries(names.map((name): [ColumnName, Number[]] => [name, []])) as Columns;
}
