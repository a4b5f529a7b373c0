// What the npm scripts call, with Node's own modules alone: installs and builds what is needed, then runs the part.
//   node stack/run.mjs start | dev | test | simulate | chaos | bench | dlq | rebuild | size [arguments]
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const [part, ...args] = process.argv.slice(2)
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 19)) fail(`Node 20.19 or newer is needed, this is ${process.version}`)

const installed = join(root, 'node_modules', '.package-lock.json')
const lock = join(root, 'package-lock.json')
if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
  say('installing packages (once) ...')
  must('npm', ['ci', '--no-audit', '--no-fund'])
}
if (part === 'start' || part === 'dev') say('building ...')
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
const vite = join(root, 'node_modules', 'vite', 'bin', 'vite.js')
must(process.execPath, [tsc, '-b'])
if (part === 'start' || part === 'dev' || part === 'test')
  must(process.execPath, [vite, 'build', join('reader', 'page')])

if (part === 'start') await run([join(root, 'stack', 'dist', 'start.js'), ...args])
else if (part === 'dev') await dev()
else if (part === 'simulate') await run([join(root, 'simulator', 'dist', 'main.js'), ...args])
else if (part === 'chaos') await run([join(root, 'e2e', 'dist', 'chaos', 'main.js'), ...args])
else if (part === 'simulate:faults') await run([join(root, 'e2e', 'dist', 'simulation', 'main.js'), ...args])
else if (part === 'bench') await run([join(root, 'bench', 'dist', 'main.js'), ...args])
else if (part === 'dlq') await run([join(root, 'bridge', 'dist', 'dlq.js'), ...args])
else if (part === 'rebuild') await run([join(root, 'consumer', 'dist', 'rebuild.js'), ...args])
else if (part === 'size') await run([join(root, 'stack', 'dist', 'size.js'), ...args])
else if (part === 'test') await test()
else fail('usage: node stack/run.mjs start|dev|test|simulate|chaos|bench|dlq|rebuild|size [arguments]')

/** What `start` runs, built and started again when it changes. */
async function dev() {
  const builders = [
    [tsc, '-b', '--watch', '--preserveWatchOutput'],
    [vite, 'build', '--watch', join('reader', 'page')],
  ].map((command) => spawn(process.execPath, command, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] }))
  const code = await child([join(root, 'stack', 'dist', 'start.js'), '--restart-on-change', ...args])
  for (const builder of builders) builder.kill()
  process.exit(code)
}

async function test() {
  const results = join(root, '.local', 'test-results.json')
  mkdirSync(dirname(results), { recursive: true })
  rmSync(results, { force: true })
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
  const code = await child([
    vitest,
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${results}`,
    ...args,
  ])
  const report = existsSync(results) ? JSON.parse(readFileSync(results, 'utf8')) : {}
  const { numPassedTests = 0, numFailedTests = 0, numPendingTests = 0, numTodoTests = 0 } = report
  const skipped = numPendingTests + numTodoTests
  const brokenFiles = (report.testResults ?? []).filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  ).length
  const failed = numFailedTests + brokenFiles || (code === 0 ? 0 : 1)
  process.stdout.write(`${numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`)
  process.exit(failed > 0 ? 1 : 0)
}

async function run(command) {
  process.exit(await child(command))
}

/** Runs Node with `command`; a terminal's Ctrl-C reaches the child by itself, SIGTERM is passed on. */
function child(command) {
  const own = spawn(process.execPath, command, { cwd: root, stdio: 'inherit' })
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => own.kill('SIGTERM'))
  return new Promise((resolve) => own.once('exit', (code) => resolve(code ?? 1)))
}

function must(program, programArgs) {
  const { status } = spawnSync(program, programArgs, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) fail(`${program} ${programArgs.join(' ')} failed`)
}

function say(line) {
  process.stderr.write(`${line}\n`)
}

function fail(line) {
  say(line)
  process.exit(1)
}
