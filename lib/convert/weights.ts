// Finds tensors in the checkpoints of one part, and says which one is missing or has another shape.
import { MiniGptError } from '../errors.js';
import { describeParts } from '../formats/recognise.js';
import { shapeText, type Checkpoint, type LazyTensor } from '../formats/tensor.js';

export class Weights {
  /** `role` as in the key `minigpt4.sources`. */
  constructor(
    readonly checkpoint: Checkpoint,
    readonly role: string,
  ) {}

  get path(): string {
    return this.checkpoint.path;
  }

  find(name: string): LazyTensor | undefined {
    return this.checkpoint.tensors.get(name);
  }

  /** The tensor; `shape` is checked up to leading sizes of 1. Errors: ERR_MISSING_TENSOR, ERR_SHAPE. */
  take(name: string, shape: readonly number[], why = ''): LazyTensor {
    const tensor = this.find(name);
    if (!tensor)
      throw new MiniGptError(
        'ERR_MISSING_TENSOR',
        `${this.path} lacks the tensor ${name} of shape ${shapeText(shape)}${why && ` (${why})`}`,
      );
    if (withoutOnes(tensor.shape) !== withoutOnes(shape)) {
      throw new MiniGptError(
        'ERR_SHAPE',
        `${this.path}: ${name} has the shape ${shapeText(tensor.shape)}, expected ${shapeText(shape)}${why && ` (${why})`}`,
      );
    }
    return tensor;
  }

  /** A tensor whose shape tells sizes. Errors: ERR_MISSING_TENSOR, ERR_SHAPE (another number of dimensions). */
  measure(name: string, dimensions: number): readonly number[] {
    const tensor = this.find(name);
    if (!tensor)
      throw new MiniGptError(
        'ERR_MISSING_TENSOR',
        `${this.path} lacks the tensor ${name}; it holds ${describeParts(this.checkpoint)}`,
      );
    if (tensor.shape.length !== dimensions || tensor.shape.some((size) => size < 1)) {
      throw new MiniGptError(
        'ERR_SHAPE',
        `${this.path}: ${name} has the shape ${shapeText(tensor.shape)}, expected ${dimensions} dimensions`,
      );
    }
    return tensor.shape;
  }

  /** How many of `prefix0suffix`, `prefix1suffix`, … there are. */
  countLayers(prefix: string, suffix: string): number {
    let count = 0;
    while (this.checkpoint.tensors.has(`${prefix}${count}${suffix}`)) count++;
    return count;
  }
}

function withoutOnes(shape: readonly number[]): string {
  return shape
    .slice(
      Math.max(
        0,
        shape.findIndex((size) => size !== 1),
      ),
    )
    .join();
}
