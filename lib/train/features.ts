// What the projection reads of a picture: from the cache, or from the frozen vision side; rounded alike in both cases.
import type { NativeModel, NativeTrainingSample } from '../addon.js';
import { toHalf } from '../data/half.js';
import type { LoadedPair } from '../data/pair.js';
import { MiniGptError } from '../errors.js';
import type { DecodedPicture } from '../image.js';

export type Features = NativeTrainingSample['features'];

/** Keeps features of pictures by their key. */
export interface FeatureStore {
  get(key: string): Promise<Features | undefined>;
  put(key: string, features: Features): Promise<void>;
}

export class FeatureSource {
  readonly #model: Pick<NativeModel, 'encodeFeatures'>;
  readonly #type: 'f16' | 'f32';
  readonly #store: FeatureStore | undefined;
  readonly #cropped: ReadonlySet<string>;

  /** `cropped`: data sets whose pictures are cut at random, which no store needs to keep. */
  constructor(
    model: Pick<NativeModel, 'encodeFeatures'>,
    type: 'f16' | 'f32',
    store?: FeatureStore,
    cropped: ReadonlySet<string> = new Set(),
  ) {
    this.#model = model;
    this.#type = type;
    this.#store = store;
    this.#cropped = cropped;
  }

  /** For the loader, which then decodes no picture that is known. */
  lookup(): { lookup?: (key: string) => Promise<Features | undefined> } {
    const store = this.#store;
    return store ? { lookup: (key) => store.get(key) } : {};
  }

  /** Features of pairs, in their order. Errors: what the model gives. */
  ofPairs(pairs: readonly LoadedPair[]): Promise<Features[]> {
    return Promise.all(pairs.map((pair) => this.#ofPair(pair)));
  }

  /** Features of a picture that no store keeps. */
  async ofPicture({ data, width, height }: DecodedPicture): Promise<Features> {
    const features = await this.#model.encodeFeatures(data, width, height);
    return this.#type === 'f16' ? toHalf(features) : features;
  }

  async #ofPair({ dataset, name, key, features, pixels }: LoadedPair): Promise<Features> {
    if (features) return features;
    if (!pixels) throw new MiniGptError('ERR_INTERNAL', `${name}: expected pixels or features, found neither`);
    const made = await this.ofPicture(pixels);
    if (!this.#cropped.has(dataset)) await this.#store?.put(key, made);
    return made;
  }
}
