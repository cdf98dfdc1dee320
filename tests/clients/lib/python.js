/** Programs of the Python packages in requirements.txt. */

import { spawn } from "node:child_process";

/**
 * Runs one to its end.
 * @param {string[]} args
 * @param {{ cwd?: string, env?: Record<string, string>, patience: number }} options Patience in ms.
 */
export async function python(args, { cwd, env = {}, patience }) {
  const packages = process.env.HEARSAY_PYTHON_PACKAGES;
  if (!packages) throw new Error("HEARSAY_PYTHON_PACKAGES must name the folder of the packages in requirements.txt: `cargo xtask clients` does");
  const child = spawn("python3", args, { cwd, env: { ...process.env, PYTHONPATH: packages, PYTHONUNBUFFERED: "1", ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, patience);
  const code = await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
  clearTimeout(timer);
  if (late) throw new Error(`python3 ${args.join(" ")}: still running after ${patience} ms\n${stdout}\n${stderr}`);
  return { code, stdout, stderr };
}
