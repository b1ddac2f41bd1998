// What a run measures: files, the programs that take turns on each, and their tests.
import type { GgufTensorInfo, TypeName } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { nearest } from '../nearest.js';
import { MODEL_FILE, onnxBytes, writeOnnxVit, type OnnxType } from './onnx-vit.js';
import type { PeerName } from './peers.js';
import type { PlannedFile } from './files.js';
import { isOfVit } from './operations.js';
import type { LimitName } from './record.js';
import {
  LLMS,
  VISIONS,
  planLlm,
  planVision,
  plannedTensors,
  writeSynthetic,
  type FileType,
  type SyntheticFile,
} from './synthetic.js';
import type { Test } from './measured-test.js';

/** Which files are asked for: sizes of synthetic.ts with their types. */
export interface Asked {
  size: string;
  types: string[];
}

export interface Scope {
  models: Asked[];
  /** The first is measured with everything, the others with what compares levels. */
  levels: string[];
  threads: number;
  peers: boolean;
  busy: boolean;
  quick: boolean;
}

/** One program on one file. */
export interface Participant {
  program: 'minigpt4' | PeerName;
  /** Of the file that it computes with: a peer's own for pictures. */
  type: string;
  level?: string;
  threads: number;
  tests: Test[];
  files: { llm?: PlannedFile; vision?: PlannedFile; onnx?: PlannedFile };
  /** What it reads and computes, for counting. */
  tensors: GgufTensorInfo[];
  /** Which limit its products have where there is a matrix unit, and where there is none. */
  limits: [LimitName, LimitName];
  /** Memory that it takes, by the size of its files and what was seen of the program. */
  memoryBytes: number;
  /** Loading is measured, too. */
  loads: boolean;
  busyTests: Test[];
}

/** Programs that take their tests in turn. */
export interface Group {
  model: string;
  participants: Participant[];
}

const LLM_TYPES: FileType[] = ['q4_0', 'q8_0', 'q4_k_m'];
const VISION_TYPES: TypeName[] = ['f16', 'bf16', 'q8_0'];
/** Of one conversation, and of all that decode together. */
export const CONTEXT_LENGTH = 1024;
const SHORT = 64;
const LONG = 512;
const CHATS: Test = { kind: 'chats', chats: 8, count: 32 };
const PREFILL: Test = { kind: 'prompt', count: SHORT };
const DECODE: Test = { kind: 'generate', count: SHORT };
const ENCODE: Test = { kind: 'encode' };
/** What a program without a Q-Former does, too. */
const VIT: Test = { kind: 'vit' };
/** Shorter: a program that collapses takes minutes for more. */
const BUSY: Test[] = [PREFILL, { kind: 'generate', count: 16 }];
/** Q4_K_M files below this are decoded by a single thread, too. */
const SINGLE_THREAD_BYTES = 2e9;

const isVision = (size: string): boolean => Object.hasOwn(VISIONS, size);
const typesOf = (size: string): string[] => (isVision(size) ? VISION_TYPES : LLM_TYPES);

/** `65m,7b:q4_0,vit-g`. Error ERR_ARGUMENT names what is unknown. */
export function parseModels(list: string, option: string): Asked[] {
  const sizes = [...Object.keys(LLMS), ...Object.keys(VISIONS)];
  const asked = new Map<string, string[]>();
  const check = (known: string[], word: string): void => {
    if (known.includes(word)) return;
    const meant = nearest(word, known);
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `bench: option ${option}: expected some of ${known.join(', ')}, found "${word}"${meant ? ` (did you mean ${meant}?)` : ''}`,
    );
  };
  for (const entry of list.split(',')) {
    const [size = '', ...rest] = entry.trim().split(':');
    check(sizes, size);
    const type = rest.length > 0 ? rest.join(':') : undefined;
    if (type !== undefined) check(typesOf(size), type);
    asked.set(size, [...(asked.get(size) ?? []), ...(type === undefined ? typesOf(size) : [type])]);
  }
  return [...asked].map(([size, types]) => ({ size, types: [...new Set(types)] }));
}

export const ALL_MODELS = '65m,1.1b,7b,vit-g';
export const QUICK_MODELS = '65m,1.1b';

interface GgufFile extends PlannedFile {
  tensors: GgufTensorInfo[];
}

function ggufFile(name: string, planned: SyntheticFile): GgufFile {
  const tensors = plannedTensors(planned);
  return {
    name: `${name}.gguf`,
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    tensors,
    write: (path, signal) => writeSynthetic(path, planned, signal),
  };
}

const llmFile = (size: string, type: FileType): GgufFile =>
  ggufFile(`llm-${size}-${type}-${LLMS[size]!.depth}x${LLMS[size]!.width}`, planLlm(size, type));

/** The projection leads to a language model of `size`. */
const visionFile = (name: string, type: TypeName, size: string): GgufFile =>
  ggufFile(`vision-${name}-${type}-to-${LLMS[size]!.width}`, planVision(name, VISIONS[name]!, type, LLMS[size]!.width));

const onnxFile = (name: string, type: OnnxType): PlannedFile => ({
  name: `onnx-${name}-${type}`,
  bytes: onnxBytes(VISIONS[name]!, type),
  last: MODEL_FILE,
  write: (path, signal) => writeOnnxVit(path, VISIONS[name]!, type, signal),
});

/** What a program holds beside weights: itself, caches of CONTEXT_LENGTH positions, activations. */
const BESIDE_BYTES = 4e8;
/** What a loaded file takes, as multiples of it: ours holds it once, node-llama-cpp and onnxruntime keep a second, repacked copy. */
const COPIES = { minigpt4: 1.1, 'node-llama-cpp': 2.1, 'onnxruntime-node': 2.2 };

function memoryOf(program: Participant['program'], files: Participant['files']): number {
  const bytes = Object.values(files).reduce((sum: number, file: PlannedFile) => sum + file.bytes, 0);
  return bytes * COPIES[program] + BESIDE_BYTES;
}

/** Language models that pictures are encoded beside, where only the picture's side counts. */
const SMALLEST = 'tiny';

function llmGroup(size: string, type: FileType, scope: Scope): Group {
  const llm = llmFile(size, type);
  const files = { llm };
  const [level, ...others] = scope.levels;
  const { tensors } = llm;
  const base = {
    type,
    files,
    tensors,
    limits: ['tileInt8', 'dot'] as [LimitName, LimitName],
    loads: false,
    busyTests: [],
  };
  const ours = { ...base, program: 'minigpt4' as const, memoryBytes: memoryOf('minigpt4', files) };
  const peer = { ...base, program: 'node-llama-cpp' as const, memoryBytes: memoryOf('node-llama-cpp', files) };
  const { threads } = scope;
  const all = [PREFILL, { kind: 'prompt', count: LONG } as const, DECODE];
  const busyTests = scope.busy && type === 'q4_0' ? BUSY : [];
  const participants: Participant[] = [
    { ...ours, level: level!, threads, tests: [...all, CHATS], loads: true, busyTests },
    ...(scope.peers ? [{ ...peer, threads, tests: all, loads: true, busyTests }] : []),
    ...(type === 'q4_0' ? others.map((other) => ({ ...ours, level: other, threads, tests: [PREFILL, DECODE] })) : []),
  ];
  if (!scope.quick && threads > 1 && llm.bytes < SINGLE_THREAD_BYTES && type === 'q4_k_m') {
    participants.push({ ...ours, level: level!, threads: 1, tests: [DECODE] });
    if (scope.peers) participants.push({ ...peer, threads: 1, tests: [DECODE] });
  }
  return { model: size, participants };
}

function visionGroup(name: string, types: TypeName[], scope: Scope): Group {
  const llm = llmFile(SMALLEST, 'q4_0');
  const [level, ...others] = scope.levels;
  const { threads } = scope;
  const ours = (type: TypeName, at: string, loads: boolean): Participant => {
    const files = { llm, vision: visionFile(name, type, SMALLEST) };
    const { tensors } = files.vision;
    return {
      tensors,
      ...{ program: 'minigpt4', type, level: at, threads, tests: [ENCODE, VIT], files, loads, busyTests: [] },
      limits: type === 'q8_0' ? ['tileInt8', 'dot'] : ['tileBf16', 'fma'],
      memoryBytes: memoryOf('minigpt4', files),
    };
  };
  const theirs = (type: OnnxType): Participant => {
    const files = { onnx: onnxFile(name, type) };
    return {
      tensors: visionFile(name, 'f32', SMALLEST).tensors.filter(isOfVit),
      ...{ program: 'onnxruntime-node', type, threads, tests: [VIT], files, loads: true, busyTests: [] },
      limits: type === 'int8' ? ['tileInt8', 'dot'] : ['tileBf16', 'fma'],
      memoryBytes: memoryOf('onnxruntime-node', files),
    };
  };
  return {
    model: name,
    participants: [
      ...types.map((type) => ours(type, level!, true)),
      ...(scope.peers ? [theirs('int8'), theirs('fp32')] : []),
      ...others.flatMap((other) => types.filter((type) => type !== 'bf16').map((type) => ours(type, other, false))),
    ],
  };
}

/** From a new picture's file to the first token about it, in int8. */
function firstTokenGroup(name: string, size: string, scope: Scope): Group {
  const files = { llm: llmFile(size, 'q4_0'), vision: visionFile(name, 'q8_0', size) };
  const participant: Participant = {
    ...{ program: 'minigpt4', type: 'q4_0', level: scope.levels[0]!, threads: scope.threads, files },
    ...{ tests: [{ kind: 'firstToken' }], loads: true, busyTests: [], limits: ['tileInt8', 'dot'] },
    tensors: files.vision.tensors,
    memoryBytes: memoryOf('minigpt4', files),
  };
  return { model: `${name} q8_0, ${size}`, participants: [participant] };
}

/** In the order in which they are measured: what shares a file lies side by side. */
export function planGroups(scope: Scope): Group[] {
  const llms = scope.models.filter(({ size }) => !isVision(size));
  const visions = scope.models.filter(({ size }) => isVision(size));
  const groups = visions.map(({ size, types }) => visionGroup(size, types as TypeName[], scope));
  const bytesOf = (size: string): number => llmFile(size, 'q4_0').bytes;
  const [largest] = llms
    .filter(({ types }) => types.includes('q4_0'))
    .sort((one, other) => bytesOf(other.size) - bytesOf(one.size));
  for (const { size, types } of llms) {
    for (const type of types) {
      groups.push(llmGroup(size, type as FileType, scope));
      if (size === largest?.size && type === 'q4_0')
        groups.push(...visions.map((vision) => firstTokenGroup(vision.size, size, scope)));
    }
  }
  return groups;
}
