// What a model's loading is told, checked as a whole: wishes that only a GPU can follow need one.
import { MiniGptError } from './errors.js';
import { asItIs, checkOptions, loadRules, type LoadOptions } from './options.js';

/** What a GPU is told: the device, and the wishes that only a GPU can follow. */
export type GpuWishes = Pick<LoadOptions, 'device' | 'gpuLayers' | 'visionDevice' | 'gpuMemory'>;

/**
 * What is wrong where a wish for a GPU meets the CPU, which would pass it over without a word; undefined: nothing. Device 'auto' may find a GPU or
 * none, and then passes such wishes over as it should.
 */
export function wishWithoutGpu(wishes: GpuWishes, spell: (key: string) => string = asItIs): string | undefined {
  const { device, gpuLayers = 0, visionDevice, gpuMemory } = wishes;
  if ((device ?? 'cpu') !== 'cpu') return undefined;
  const on = `${spell('device')} is ${device === undefined ? "'cpu' where it is left out" : "'cpu'"}`;
  const wrong = (key: string, value: string, expected: string) =>
    `${spell(key)} is ${value}, but ${on}: expected ${expected}, or a GPU as ${spell('device')}`;
  if (gpuLayers > 0) return wrong('gpuLayers', String(gpuLayers), '0');
  if (visionDevice === 'gpu') return wrong('visionDevice', "'gpu'", "'cpu'");
  if (gpuMemory !== undefined) return wrong('gpuMemory', String(gpuMemory), 'none');
  return undefined;
}

/** The options of a model that is to be loaded, checked. Errors: ERR_ARGUMENT, as checkOptions, and for wishes that the device cannot follow. */
export function checkLoad<Options extends Partial<LoadOptions>>(
  options: Options | undefined,
  of: string,
  spell: (key: string) => string = asItIs,
): Options {
  const checked = checkOptions(loadRules, options, of, spell);
  const wrong = wishWithoutGpu(checked, spell);
  if (wrong !== undefined) throw new MiniGptError('ERR_ARGUMENT', `${of}: ${wrong}`);
  return checked;
}
