// Classify a picture from Node.js: node classify.mjs PICTURE [SOCKET]. No package is needed.
import { readFile } from "node:fs/promises";
import { request } from "node:http";

const [picture, socketPath = process.env.EDGEAI_SOCKET ?? "/run/edgeai/edgeaid.sock"] = process.argv.slice(2);

function ask(method, path, body) {
  return new Promise((resolve, reject) => {
    const question = request({ socketPath, method, path, headers: { "Content-Length": body.length } }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => {
        const value = JSON.parse(Buffer.concat(parts).toString());
        answer.statusCode < 400 ? resolve(value) : reject(new Error(value.error));
      });
    });
    question.on("error", reject);
    question.end(body);
  });
}

try {
  const answer = await ask("POST", "/edgeai/v1/models/digits/classify?max_results=1", await readFile(picture));
  const best = answer.classes[0];
  console.log(`${best.label} (${best.score.toFixed(2)}) on ${answer.device}`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
