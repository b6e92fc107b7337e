// The post-processing of MediaPipe's, MoveNet's and PoseNet's authors, run unmodified from their npm packages:
// `exporters.js TENSORS.json`, with NODE_PATH naming the packages. Prints JSON, coordinates in units of the input.
const fs = require('fs');
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');
const models = '@tensorflow-models/';

const CONFIGURATIONS = {
  'face-short': ['face-detection', 'SHORT_RANGE_DETECTOR_ANCHOR_CONFIG', 'SHORT_RANGE_TENSORS_TO_DETECTION_CONFIG'],
  'face-full': ['face-detection', 'FULL_RANGE_DETECTOR_ANCHOR_CONFIG', 'FULL_RANGE_TENSORS_TO_DETECTION_CONFIG'],
  'palm': ['hand-pose-detection', 'MPHANDS_DETECTOR_ANCHOR_CONFIGURATION', 'MPHANDS_TENSORS_TO_DETECTION_CONFIGURATION'],
};

async function anchored(name, task) {
  const [model, anchorsAt, decodingAt] = CONFIGURATIONS[name];
  const calculators = `${models}${model}/dist/shared/calculators/`;
  const constants = require(`${models}${model}/dist/tfjs/constants`);
  const {createSsdAnchors} = require(calculators + 'create_ssd_anchors');
  const {tensorsToDetections} = require(calculators + 'tensors_to_detections');
  const {nonMaxSuppression} = require(calculators + 'non_max_suppression');
  const anchors = createSsdAnchors(constants[anchorsAt]);
  const column = (key) => tf.tensor1d(anchors.map((a) => a[key]));
  const anchor = {x: column('xCenter'), y: column('yCenter'), w: column('width'), h: column('height')};
  const config = {...constants[decodingAt], minScoreThresh: task.threshold};
  const tensors = [tf.tensor1d(task.outputs[1].flat(2)), tf.tensor2d(task.outputs[0][0])];
  const seen = await nonMaxSuppression(await tensorsToDetections(tensors, anchor, config), 200, task.iou);
  return seen.map(({score, locationData: {relativeBoundingBox: box, relativeKeypoints: points}}) =>
    ({score: score[0], box: [box.xMin, box.yMin, box.xMax, box.yMax], points: points.map((p) => [p.x, p.y])}));
}

function person(pose, width, height) {
  const points = pose.keypoints.map((p) => [p.x / width, p.y / height, p.score]);
  return {score: pose.score, points, box: pose.box && [pose.box.xMin, pose.box.yMin, pose.box.xMax, pose.box.yMax]};
}

async function movenet(multiple, task) {
  const {load} = require(`${models}pose-detection/dist/movenet/detector`);
  const graph = {execute: () => tf.tensor(task.outputs[0])};
  require('@tensorflow/tfjs-converter').loadGraphModel = async () => graph;
  const kind = multiple ? 'MultiPose.Lightning' : 'SinglePose.Lightning';
  const detector = await load({modelType: kind, modelUrl: 'unused', enableTracking: false});
  const input = tf.zeros([1, 192, 192, 3], 'int32');
  const ask = multiple ? 'runMultiPersonPoseModel' : 'runSinglePersonPoseModel';
  return [await detector[ask](input)].flat().map((pose) => person(pose, 1, 1));
}

async function posenet(task) {
  const {decodeSinglePose} = require(`${models}pose-detection/dist/posenet/calculators/decode_single_pose`);
  const [maps, offsets] = task.outputs.map((values) => tf.tensor3d(values[0]));
  return [person(await decodeSinglePose(tf.sigmoid(maps), offsets, task.stride), ...task.size)];
}

async function main() {
  await tf.setBackend('cpu');
  const task = JSON.parse(fs.readFileSync(process.argv[2]));
  const decoders = {
    'movenet': () => movenet(false, task), 'movenet-multi': () => movenet(true, task), 'posenet': () => posenet(task)};
  const answer = await (decoders[task.name] || (() => anchored(task.name, task)))();
  console.log(JSON.stringify(answer));
}

main();
