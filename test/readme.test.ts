// README.md says what is so: its example runs, its tables name what there is.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { gitFiles, read, root } from './checkout.js';

const text = read('README.md');
const blocks = (language: string) =>
  [...text.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm'))].map((match) => match[1]!);
/** First cells of the table under a heading, in code quotes. */
const firstCells = (heading: string) => {
  const section = text.split(new RegExp(`^#+ ${heading}$`, 'm'))[1]!.split(/^#/m)[0]!;
  return [...section.matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1]!);
};
const main = (...words: string[]) =>
  spawnSync(process.execPath, [join(root, 'dist', 'cli', 'main.js'), ...words], { encoding: 'utf8' });

const readme = suite('README');

readme('the TypeScript example runs, and its types are right', () => {
  const examples = blocks('ts');
  assert.is(examples.length, 1);
  // below the checkout, where 'minigpt4' is the package itself, as built
  const folder = join(root, 'out', 'readme');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'example.ts'), examples[0]!);
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      extends: '../../tsconfig.json',
      compilerOptions: { noEmit: true, rootDir: '../..', noUnusedLocals: false },
      include: ['example.ts'],
    }),
  );
  copyFileSync(join(root, 'models', 'example.jpg'), join(folder, 'photo.jpg'));
  const types = spawnSync(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder], {
    encoding: 'utf8',
  });
  assert.is(types.status, 0, types.stdout);
  const { MINIGPT4_MODEL: _, ...env } = process.env;
  const run = spawnSync(process.execPath, ['--import', 'tsx', 'example.ts'], { cwd: folder, encoding: 'utf8', env });
  assert.is(run.status, 0, run.stderr);
  const lines = run.stdout.trim().split('\n');
  assert.is(lines.length, 4, run.stdout);
  assert.match(lines[1]!, /^\d+ tokens, (stop|eos|length)$/);
  assert.ok(
    lines.every((line) => line.length > 10),
    run.stdout,
  );
});

readme('the two commands are scripts of package.json', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  assert.match(text, 'npm install && npm run demo');
  assert.match(text, 'npm install && npm test');
  assert.ok(scripts['demo'] && scripts['test']);
});

readme('the table of commands is what --help lists', () => {
  const listed = firstCells('Command line').map((cell) => cell.split(' ')[1]);
  const help = main('--help').stdout.split('Commands:')[1]!;
  const known = [...help.matchAll(/^ {2}([a-z]+)/gm)].map((match) => match[1]).filter((name) => name !== 'help');
  assert.equal(listed, known);
});

readme('every option in its command lines is one', () => {
  const lines = blocks('sh')
    .flatMap((block) => block.split('\n'))
    .filter((line) => line.startsWith('npx minigpt4 '));
  assert.ok(lines.length >= 5);
  for (const line of lines) {
    const command = line.split(' ')[2]!;
    const help = main(command, '--help').stdout;
    for (const [option] of line.matchAll(/--[a-z-]+/g))
      assert.match(help, new RegExp(`${option}\\b`), `${command} ${option}`);
  }
});

readme('the table of errors has every code and no other', () => {
  const codes = [...new Set(read('lib/errors.ts').match(/\bERR_[A-Z_]+\b/g))].filter(
    (code) => code !== 'ERR_MEMORY_ALLOCATION_FAILED',
  );
  assert.equal(firstCells('Errors').sort(), codes.sort());
});

readme('the table of environment variables has every one that the code reads', () => {
  const sources = [
    ...readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' }).map((path) => join('lib', path)),
    ...readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' }).map((path) => join('native', path)),
  ]
    .filter((path) => /\.(ts|cpp|h|cu)$/.test(path))
    // the emulator is for tests and never packaged: its own README tells
    .filter((path) => !path.startsWith(join('native', 'simt')));
  const named = new Set(
    sources.flatMap((path) =>
      [...read(path).matchAll(/(?:env\[?\.?'?|getenv\(")(MINIGPT4_[A-Z_]+)/g)].map((match) => match[1]!),
    ),
  );
  assert.equal(firstCells('Environment').sort(), [...named].sort());
});

readme('links inside the repository lead somewhere', () => {
  const documents = (gitFiles() ?? ['README.md', 'CONTRIBUTING.md']).filter((path) => path.endsWith('.md'));
  const dead = documents.flatMap((path) =>
    [...read(path).matchAll(/\]\((?!https?:|#|mailto:)([^)#]+)[^)]*\)/g)]
      .map((match) => normalize(join(dirname(path), match[1]!)))
      .filter((target) => !existsSync(join(root, target)))
      .map((target) => `${path}: ${target}`),
  );
  assert.equal(dead, []);
});

readme.run();
