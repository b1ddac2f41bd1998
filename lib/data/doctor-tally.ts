// How whole numbers are spread: exact percentiles of any number of them, since few values are different.

export interface Spread {
  count: number;
  least: number;
  most: number;
  mean: number;
  p10: number;
  p50: number;
  p90: number;
  p99: number;
}

/** Numbers of `from` to `to`, both included. */
export interface Bar {
  from: number;
  to: number;
  count: number;
}

export class Tally {
  readonly #counts = new Map<number, number>();
  #count = 0;

  add(value: number): void {
    this.#counts.set(value, (this.#counts.get(value) ?? 0) + 1);
    this.#count++;
  }

  /** Undefined where nothing was added. Percentiles are values that occur: the least one that so many are not above. */
  spread(): Spread | undefined {
    if (this.#count === 0) return undefined;
    const sorted = this.#sorted();
    const at = (share: number) => {
      let below = 0;
      for (const [value, count] of sorted) if ((below += count) >= share * this.#count) return value;
      return sorted.at(-1)![0];
    };
    const sum = sorted.reduce((total, [value, count]) => total + value * count, 0);
    return {
      count: this.#count,
      least: sorted[0]![0],
      most: sorted.at(-1)![0],
      mean: sum / this.#count,
      p10: at(0.1),
      p50: at(0.5),
      p90: at(0.9),
      p99: at(0.99),
    };
  }

  /** Bars that double in width, 0 and 1, 2 and 3, 4 to 7, … without the empty ones at either end. */
  bars(): Bar[] {
    const bars: Bar[] = [];
    for (const [value, count] of this.#sorted()) {
      const from = value < 2 ? 0 : 2 ** Math.floor(Math.log2(value));
      let last = bars.at(-1);
      while (last && last.from < from) {
        const next = Math.max(2, last.from * 2);
        bars.push((last = { from: next, to: next * 2 - 1, count: 0 }));
      }
      if (!last) bars.push((last = { from, to: from === 0 ? 1 : from * 2 - 1, count: 0 }));
      last.count += count;
    }
    return bars;
  }

  #sorted(): [number, number][] {
    return Array.from(this.#counts).sort(([a], [b]) => a - b);
  }
}
