// Seeded random numbers whose state can be written down, for everything about training that is drawn.

/** xoshiro128++ (Blackman and Vigna, 2019), seeded by splitmix32; four 32-bit words of state. */
export class Random {
  #s: Uint32Array;

  /** Streams of different words are independent: `new Random(42, 'shuffle', epoch)`. */
  constructor(...seed: (number | string)[]) {
    let hash = 0x9e3779b9;
    for (const byte of new TextEncoder().encode(JSON.stringify(seed))) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0; // FNV-1a's step
    this.#s = new Uint32Array(4);
    for (let i = 0; i < 4; i++) {
      hash = (hash + 0x9e3779b9) >>> 0;
      let z = hash;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      this.#s[i] = z ^ (z >>> 16);
    }
    if (this.#s.every((word) => word === 0)) this.#s[0] = 1;
  }

  static fromState(state: readonly number[]): Random {
    const random = new Random(0);
    random.#s.set(state);
    return random;
  }

  get state(): number[] {
    return Array.from(this.#s);
  }

  /** 0 to 2^32 - 1. */
  word(): number {
    const s = this.#s;
    const sum = (s[0]! + s[3]!) >>> 0;
    const result = (((sum << 7) | (sum >>> 25)) + s[0]!) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = (s[3]! << 11) | (s[3]! >>> 21);
    return result;
  }

  /** In [0, 1), 53 bits. */
  uniform(): number {
    return ((this.word() >>> 5) * 2 ** 26 + (this.word() >>> 6)) / 2 ** 53;
  }

  /** A whole number from 0 to n - 1, all equally likely. n up to 2^32. */
  below(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const word = this.word();
      if (word < limit) return word % n;
    }
  }

  /** The numbers 0 to n - 1 in random order (Fisher and Yates). */
  permutation(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}
