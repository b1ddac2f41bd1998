// What may lie in the repository: no build output, nothing of one machine, nothing too large.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { gitFiles, read, root } from './checkout.js';

const megabyte = 1024 * 1024;
const files = gitFiles();
const tree = suite('tree');
const inGit = files ? tree : tree.skip;
const size = (path: string) => statSync(join(root, path)).size;
const sum = (paths: string[]) => paths.reduce((bytes, path) => bytes + size(path), 0);

inGit('all files together stay under 38 MB, the test fixtures under 12 MB', () => {
  assert.ok(files!.length > 50, `only ${files!.length} files found`);
  const all = sum(files!);
  assert.ok(all < 38 * megabyte, `${(all / megabyte).toFixed(1)} MB`);
  const fixtures = sum(files!.filter((path) => path.startsWith('test/fixtures/')));
  assert.ok(fixtures < 12 * megabyte, `${(fixtures / megabyte).toFixed(1)} MB of fixtures`);
});

inGit('no build output', () => {
  const output =
    /(^|\/)(node_modules|build|dist|out|\.vscode|__pycache__)\/|^prebuilds\/(?!README\.md$)|\.(o|a|so|dylib|node|tgz|pyc|log)$/;
  assert.equal(
    files!.filter((path) => output.test(path)),
    [],
  );
});

inGit('no path of one machine in any text', () => {
  const machine = /(?:^|[^A-Za-z0-9_.])\/(?:work|farm|root|tmp|home|Users)\/[A-Za-z]/;
  const binary = /\.(gguf|pth|bin|safetensors|model|jpe?g|png|webp|gif|tar)$/;
  const found = files!
    .filter((path) => !binary.test(path) && path !== 'package-lock.json')
    .flatMap((path) =>
      read(path)
        .split('\n')
        .flatMap((line, index) => (machine.test(line) ? [`${path}:${index + 1}: ${line.trim().slice(0, 120)}`] : [])),
    );
  assert.equal(found, []);
});

inGit('no source file is longer than 800 lines', () => {
  const long = files!
    .filter((path) => /\.(ts|mjs|cpp|h)$/.test(path))
    .filter((path) => read(path).split('\n').length > 800);
  assert.equal(long, []);
});

tree('package-lock.json fits package.json and records no download addresses', () => {
  const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string>>;
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, Record<string, unknown>> };
  assert.equal(lock.packages['']!['dependencies'], manifest['dependencies']);
  assert.equal(lock.packages['']!['devDependencies'], manifest['devDependencies']);
  assert.equal(
    Object.keys(lock.packages).filter((name) => 'resolved' in lock.packages[name]!),
    [],
  );
});

tree('every package in use runs on the oldest Node that package.json promises', () => {
  // of "^20.17.0 || >=22.9.0" each alternative begins with its floor
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, { engines?: { node?: string } }> };
  const [major, minor] = lock.packages['']!.engines!.node!.match(/\d+/g)!.map(Number) as [number, number];
  const tooNew = Object.entries(lock.packages).filter(([, { engines }]) => {
    const floors = (engines?.node ?? '').split('||').flatMap((range) => {
      const floor = range.match(/^\s*(?:>=|\^|~|=)?\s*v?(\d+)(?:\.(\d+))?/);
      return floor ? [[Number(floor[1]), Number(floor[2] ?? 0)] as const] : [];
    });
    return floors.length > 0 && floors.every(([a, b]) => a > major || (a === major && b > minor));
  });
  assert.equal(
    tooNew.map(([name, { engines }]) => `${name} needs Node ${engines!.node}`),
    [],
  );
});

tree.run();
