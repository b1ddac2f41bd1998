// Cuts bytes that arrive in pieces into lines, and tells where in the file each one ends.

/** Gives each line, without its line feed, once that has come; `offset` is then where the next line of the file begins. */
export class LineCutter {
  offset: number;
  #rest: Buffer[] = [];

  constructor(offset = 0) {
    this.offset = offset;
  }

  *push(bytes: Buffer): Generator<string> {
    let from = 0;
    for (let feed = bytes.indexOf(10); feed >= 0; feed = bytes.indexOf(10, from)) {
      const line = Buffer.concat([...this.#rest, bytes.subarray(from, feed)]);
      this.#rest = [];
      from = feed + 1;
      this.offset += line.length + 1;
      yield line.toString('utf8');
    }
    if (from < bytes.length) this.#rest.push(Buffer.from(bytes.subarray(from)));
  }
}
