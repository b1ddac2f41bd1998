// The miniature world as measurements read it: its checkpoints, its scenes, the reference's answers, and questions to a model about them.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { NativeImage, NativeModel, NativePromptPart } from '../lib/addon.js';
import type { ConvertOptions } from '../lib/convert.js';
import { generateGreedy } from '../lib/generate.js';
import { readPicture } from '../lib/image.js';
import { renderPrompt, stopTexts, templateOf, withImage, withQuestion } from '../lib/prompt.js';

export interface ReferenceAnswer {
  file: string;
  prompt: string;
  ids: number[];
  main_named: boolean;
}

/** The reference's answers, the first `limit` of them where one is given. */
export async function referenceAnswers(
  world: string,
  limit?: string,
): Promise<{ maxTokens: number; answers: ReferenceAnswer[] }> {
  const text = await readFile(join(world, 'eval', 'reference_answers.json'), 'utf8');
  const { max_tokens, answers } = JSON.parse(text) as { max_tokens: number; answers: ReferenceAnswer[] };
  return { maxTokens: max_tokens, answers: answers.slice(0, limit ? Number(limit) : undefined) };
}

/** What the world's model is converted from. */
export function worldSources(world: string): Omit<ConvertOptions, 'out'> {
  const pretrained = (name: string): string => join(world, 'pretrained', name);
  return {
    vit: pretrained('eva_vit_g.pth'),
    qformer: pretrained('blip2_pretrained_flant5xxl.pth'),
    llm: pretrained('vicuna'),
    config: pretrained('config.json'),
    projection: join(world, 'reference_projection', 'pretrained_minigpt4_stage2.pth'),
  };
}

export const sceneFile = (world: string, file: string): string => join(world, 'eval', 'scenes', file);

export async function encodeFile(model: NativeModel, path: string): Promise<NativeImage> {
  const { data, width, height } = await readPicture(path);
  return model.encodeImage(data, width, height);
}

export function promptOf(model: NativeModel, image: NativeImage, question: string): NativePromptPart[] {
  return renderPrompt(templateOf(model.info().template), withQuestion(withImage([], image), question));
}

/** The greedy answer to a question about a picture. */
export function ask(model: NativeModel, image: NativeImage, question: string, maxTokens: number) {
  const ends = { stop: stopTexts, stopIds: [model.info().eos] };
  return generateGreedy(model, promptOf(model, image, question), maxTokens, ends);
}
