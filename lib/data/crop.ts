// The first release's transform of training pictures: a random part of the picture, of random area and proportions (torchvision's RandomResizedCrop).
import type { DecodedPicture } from '../image.js';
import type { Random } from '../random.js';

/** A part of a picture in whole pixels. */
export interface Rectangle {
  left: number;
  top: number;
  width: number;
  height: number;
}

const proportions = [3 / 4, 4 / 3] as const;

/**
 * Draws the part: its share of the area uniformly from minScale to maxScale, width to height log-uniformly from 3/4 to 4/3, its place
 * uniformly. After ten draws that do not fit, the largest part in the centre with proportions within those bounds.
 */
export function drawCrop(
  width: number,
  height: number,
  { minScale, maxScale }: { minScale: number; maxScale: number },
  random: Random,
): Rectangle {
  const [narrow, broad] = [Math.log(proportions[0]), Math.log(proportions[1])];
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = width * height * (minScale + (maxScale - minScale) * random.uniform());
    const proportion = Math.exp(narrow + (broad - narrow) * random.uniform());
    const w = Math.round(Math.sqrt(area * proportion));
    const h = Math.round(Math.sqrt(area / proportion));
    if (w >= 1 && w <= width && h >= 1 && h <= height) {
      return { top: random.below(height - h + 1), left: random.below(width - w + 1), width: w, height: h };
    }
  }
  const w = width / height > proportions[1] ? Math.round(height * proportions[1]) : width;
  const h = width / height < proportions[0] ? Math.round(width / proportions[0]) : height;
  return { left: Math.floor((width - w) / 2), top: Math.floor((height - h) / 2), width: w, height: h };
}

/** The part's pixels, copied: RGB [height, width, 3]. */
export function cut(picture: DecodedPicture, { left, top, width, height }: Rectangle): DecodedPicture {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * picture.width + left) * 3;
    data.set(picture.data.subarray(from, from + width * 3), y * width * 3);
  }
  return { data, width, height };
}
