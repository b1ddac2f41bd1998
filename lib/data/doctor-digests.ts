// Which contents were met before, for millions of them: 16 bytes of each SHA-256 and a number, in one flat table.

const words = 4; // of a digest
const stride = words + 1; // and the number

/** Remembers for each content the number that it was first met with. 27 to 40 bytes an entry. */
export class Digests {
  #slots = 1024;
  #table = new Uint32Array(this.#slots * stride);
  #used = 0;

  get size(): number {
    return this.#used;
  }

  /** The number that this digest (16 bytes at least) came with the first time, or undefined: then it is remembered with `number`, 0 to 2^32 - 2. */
  meet(digest: Uint8Array, number: number): number | undefined {
    if ((this.#used + 1) * 4 > this.#slots * 3) this.#grow();
    const view = new DataView(digest.buffer, digest.byteOffset, digest.byteLength);
    const key = [view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12)];
    const at = this.#find(this.#table, this.#slots, key, 0);
    const found = this.#table[at + words]!;
    if (found !== 0) return found - 1;
    this.#table.set(key, at);
    this.#table[at + words] = number + 1;
    this.#used++;
    return undefined;
  }

  /** The place of `from[offset..]` in the table, or the free one where it belongs. */
  #find(table: Uint32Array, slots: number, from: ArrayLike<number>, offset: number): number {
    for (let slot = from[offset]! % slots; ; slot = (slot + 1) % slots) {
      const at = slot * stride;
      if (table[at + words] === 0) return at;
      let same = true;
      for (let i = 0; i < words; i++) same &&= table[at + i] === from[offset + i];
      if (same) return at;
    }
  }

  #grow(): void {
    const slots = this.#slots * 2;
    const table = new Uint32Array(slots * stride);
    for (let at = 0; at < this.#table.length; at += stride) {
      if (this.#table[at + words] === 0) continue;
      table.set(this.#table.subarray(at, at + stride), this.#find(table, slots, this.#table, at));
    }
    this.#slots = slots;
    this.#table = table;
  }
}
