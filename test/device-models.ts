// The device that tests of the GPU's path compute on, and small models for it. MINIGPT4_TEST_DEVICE names it; without it, the emulator.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  addon,
  type NativeGenerateRequest,
  type NativeImage,
  type NativeModel,
  type NativePromptPart,
} from '../lib/addon.js';
import { convert } from '../lib/convert.js';
import type { WritableType } from '../lib/convert/options.js';
import { MiniGptError } from '../lib/errors.js';
import { readPpm } from './ppm.js';

export const device = process.env['MINIGPT4_TEST_DEVICE'] ?? 'simt';
/** The emulator can be told to fail; a GPU cannot. */
export const emulated = device.startsWith('simt');

const fixtures = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));

export type Options = Parameters<typeof addon.loadModel>[0];

/** What `body` makes of a model that is there for it alone, with a context of 128 positions unless the options say otherwise. */
export async function withModel<T>(options: Options, body: (model: NativeModel) => Promise<T>): Promise<T> {
  const model = await addon.loadModel({ contextLength: 128, ...options });
  try {
    return await body(model);
  } finally {
    await model.close();
  }
}

export interface DeviceModels {
  folder: string;
  /** A file of the fixture `name` with weights of a type; made once. */
  model(name: 'tiny-llama2' | 'tiny-gqa', type: WritableType): Promise<string>;
  remove(): void;
}

export function deviceModels(): DeviceModels {
  const folder = mkdtempSync(join(tmpdir(), 'minigpt4-device-test-'));
  const made = new Map<string, Promise<string>>();
  const make = async (name: string, type: WritableType): Promise<string> => {
    const out = join(folder, `${name}-${type}.gguf`);
    const gqa = name === 'tiny-gqa';
    await convert({
      vit: fixtures(`${name}/eva_vit_g.pth`),
      projection: fixtures(`${name}/pretrained_minigpt4.pth`),
      llm: fixtures(`${name}/${gqa ? 'vicuna-bin' : 'llama2'}`),
      config: fixtures(`${name}/config.json`),
      out,
      type,
      template: 'vicuna0',
      ...(gqa ? { qformer: fixtures(`${name}/blip2_pretrained_flant5xxl.pth`) } : {}),
    });
    return out;
  };
  return {
    folder,
    model: (name, type) => {
      const key = `${name} ${type}`;
      if (!made.has(key)) made.set(key, make(name, type));
      return made.get(key)!;
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export const scene = () => readPpm('scene.ppm');
export const gray = () => readPpm('gray.ppm');

export function question(image: NativeImage, words = 'What is in it?'): NativePromptPart[] {
  return [{ token: '<s>' }, 'Look.###Human: <Img>', image, `</Img> ${words}###Assistant: `];
}

export function request(
  prompt: NativePromptPart[],
  changes: Partial<NativeGenerateRequest> = {},
): NativeGenerateRequest {
  return {
    prompt,
    maxTokens: 12,
    temperature: 0,
    topK: 50,
    topP: 0.9,
    minP: 0,
    repetitionPenalty: 1,
    seed: 1,
    stop: [],
    stopIds: [2],
    ...changes,
  };
}

/** Why the device cannot compute here, or undefined. Anything but a missing backend is an error. */
export async function missing(path: string): Promise<string | undefined> {
  try {
    await (await addon.loadModel({ model: path, device, contextLength: 64 })).close();
    return undefined;
  } catch (error) {
    if (error instanceof MiniGptError && error.code === 'ERR_NO_BACKEND') return error.message;
    throw error;
  }
}
