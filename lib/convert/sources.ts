// Which files a model was made from: their checksums, read once from end to end. PyTorch archives carry their own, which are checked.
import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { crc32 } from 'node:zlib';
import { MiniGptError, abortedError } from '../errors.js';
import { InputFile } from '../formats/input-file.js';
import type { CheckedRegion } from '../formats/tensor.js';

const CHUNK_BYTES = 4 << 20;

export interface Source {
  role: string;
  file: string;
}

/**
 * `role file-name sha256` of every file. `regions` are checked on the way; `onProgress` gets bytes of all files.
 * Errors: those of InputFile, ERR_FILE_FORMAT (a checksum differs), ERR_ABORTED.
 */
export async function hashSources(
  sources: readonly Source[],
  regions: readonly CheckedRegion[],
  signal: AbortSignal | undefined,
  onProgress: (done: number, total: number, file: string) => void,
): Promise<string[]> {
  const files: { source: Source; input: InputFile }[] = [];
  try {
    for (const source of sources) files.push({ source, input: await InputFile.open(source.file) });
    const total = files.reduce((sum, { input }) => sum + input.size, 0);
    let done = 0;
    const lines: string[] = [];
    for (const { source, input } of files) {
      const hash = createHash('sha256');
      const check = new ChecksumCheck(regions.filter(({ file }) => file === source.file));
      for (let at = 0; at < input.size; at += CHUNK_BYTES) {
        if (signal?.aborted) throw abortedError(signal);
        const bytes = await input.read(at, Math.min(CHUNK_BYTES, input.size - at));
        hash.update(bytes);
        check.update(at, bytes);
        onProgress((done += bytes.length), total, source.file);
      }
      lines.push(`${source.role} ${basename(source.file)} ${hash.digest('hex')}`);
    }
    return lines;
  } finally {
    for (const { input } of files) await input.close();
  }
}

/** Follows the regions of one file, which are in order, while it is read in order. */
class ChecksumCheck {
  readonly #regions: readonly CheckedRegion[];
  #next = 0;
  #sum = 0;

  constructor(regions: readonly CheckedRegion[]) {
    this.#regions = regions;
  }

  update(position: number, bytes: Uint8Array): void {
    const end = position + bytes.length;
    for (let region; (region = this.#regions[this.#next]) && region.position < end;) {
      const last = region.position + region.size;
      this.#sum = crc32(
        bytes.subarray(Math.max(0, region.position - position), Math.min(last, end) - position),
        this.#sum,
      );
      if (last > end) return;
      if (this.#sum !== region.crc32) {
        throw new MiniGptError(
          'ERR_FILE_FORMAT',
          `${region.file} is damaged: the checksum of ${region.what} differs; download it again`,
        );
      }
      this.#next++;
      this.#sum = 0;
    }
  }
}
