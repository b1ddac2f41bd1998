// The run's fixed pictures, small enough for a page. Whatever a file is, only what decodes as a picture leaves, and as pixels made anew.
import { resolve } from 'node:path';

/** Pixels of a picture's longer side on the page, for screens with two pixels a point. */
const LONGEST_SIDE = 640;
const MOST_PIXELS = 100e6;

export class Pictures {
  #folder: string;
  #made = new Map<string, Promise<Uint8Array>>();

  /** Paths that are not absolute are relative to `folder`. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** WebP bytes. Errors: what sharp says of a file that is missing or no picture. */
  get(picture: string): Promise<Uint8Array> {
    const path = resolve(this.#folder, picture);
    const known = this.#made.get(path);
    if (known) return known;
    const made = shrink(path);
    this.#made.set(path, made);
    made.catch(() => this.#made.delete(path)); // it may come later; whoever asked is told
    return made;
  }
}

async function shrink(path: string): Promise<Uint8Array> {
  const { default: sharp } = await import('sharp');
  return sharp(path, { limitInputPixels: MOST_PIXELS })
    .rotate() // as EXIF says
    .resize({ width: LONGEST_SIDE, height: LONGEST_SIDE, fit: 'inside', withoutEnlargement: true })
    .webp({ quality: 85 })
    .toBuffer();
}
