//! The fleet's figures, as a receiver of OTLP gets them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use controller_stub::config::{Config, Otlp};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    },
    common::v1::{KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, NumberDataPoint, ResourceMetrics, metric::Data, number_data_point,
    },
};
use prost::Message;
use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{Controller, eventually},
    monitoring::worker,
    telemetry::metrics,
};

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Taken,
    Status(u16),
    /// 429 with this `Retry-After`.
    Later(&'static str),
    Partial,
    Nonsense,
    Hanging,
}

#[derive(Default)]
struct Received {
    answers: VecDeque<Answer>,
    posts: Vec<(Answer, ExportMetricsServiceRequest)>,
}

struct Receiver {
    endpoint: String,
    received: Arc<Mutex<Received>>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// A receiver that answers so first, and then takes everything.
    async fn start(answers: &[Answer]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/otlp", listener.local_addr().unwrap());
        let received =
            Arc::new(Mutex::new(Received { answers: answers.iter().copied().collect(), posts: Vec::new() }));
        let routes = Router::new().route("/otlp/v1/metrics", post(take)).with_state(received.clone());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { endpoint, received, task }
    }

    fn posts(&self) -> Vec<(Answer, ExportMetricsServiceRequest)> {
        self.received.lock().unwrap().posts.clone()
    }

    fn answers(&self) -> Vec<Answer> {
        self.posts().into_iter().map(|(answer, _)| answer).collect()
    }

    /// The newest of what was said of a node.
    async fn node(&self, name: &str, good: impl Fn(&ResourceMetrics) -> bool) -> ResourceMetrics {
        eventually(&format!("figures of {name}"), async || {
            let posts = self.posts();
            let nodes = posts.iter().rev().flat_map(|(_, request)| &request.resource_metrics);
            let mut of_name = nodes.filter(|node| {
                text(&node.resource.as_ref().unwrap().attributes, "aio.node.name").as_deref() == Some(name)
            });
            of_name.next().filter(|node| good(node)).cloned().ok_or_else(|| format!("{} posts", posts.len()))
        })
        .await
    }

    async fn controller(&self, interval: Duration) -> Controller {
        let mut otlp = Otlp::new(&self.endpoint.parse().unwrap());
        otlp.headers = vec![("x-key".to_owned(), "the receiver's key".into())];
        otlp.interval = interval;
        let configure = |config: &mut Config| {
            config.otlp = Some(otlp);
            config.api_requests_per_second = None;
        };
        Controller::start_with(configure).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    assert_eq!(headers["x-key"], "the receiver's key");
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let answer = {
        let mut received = received.lock().unwrap();
        let answer = received.answers.pop_front().unwrap_or(Answer::Taken);
        received.posts.push((answer, request));
        answer
    };
    let said = |answer: ExportMetricsServiceResponse| {
        ([(header::CONTENT_TYPE, "application/x-protobuf")], answer.encode_to_vec()).into_response()
    };
    match answer {
        Answer::Taken => said(ExportMetricsServiceResponse::default()),
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Later(wait) => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, wait)]).into_response(),
        Answer::Partial => said(ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points: 3,
                error_message: "too old".to_owned(),
            }),
        }),
        Answer::Nonsense => "<html>taken</html>".into_response(),
        Answer::Hanging => std::future::pending().await,
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|it| it.key == key)?.value.as_ref()?.value.as_ref()?;
    let any_value::Value::StringValue(text) = value else { panic!("{value:?}") };
    Some(text.clone())
}

/// A metric's unit, whether it is a sum and only grows, and its points.
fn metric<'a>(node: &'a ResourceMetrics, name: &str) -> (&'a str, Option<bool>, &'a [NumberDataPoint]) {
    let found: Vec<_> =
        node.scope_metrics.iter().flat_map(|it| &it.metrics).filter(|it| it.name == name).collect();
    let [metric] = found[..] else { panic!("{name}: {} times", found.len()) };
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => (&metric.unit, None, &gauge.data_points),
        Data::Sum(sum) => {
            assert_eq!(sum.aggregation_temporality, i32::from(AggregationTemporality::Cumulative), "{name}");
            (&metric.unit, Some(sum.is_monotonic), &sum.data_points)
        }
        other => panic!("{name}: {other:?}"),
    }
}

fn names(node: &ResourceMetrics) -> Vec<&str> {
    node.scope_metrics.iter().flat_map(|it| &it.metrics).map(|it| it.name.as_str()).collect()
}

/// The values of the points that have all of these attributes.
fn values(points: &[NumberDataPoint], attributes: &[(&str, &str)]) -> Vec<f64> {
    let has = |point: &&NumberDataPoint| {
        attributes.iter().all(|(key, value)| text(&point.attributes, key).as_deref() == Some(value))
    };
    let value = |point: &NumberDataPoint| match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        other => panic!("{other:?}"),
    };
    points.iter().filter(has).map(value).collect()
}

async fn counted(controller: &Controller, name: &str) -> f64 {
    let request = controller.nobody().request(Method::GET, "/metrics");
    let text = request.send().await.unwrap().text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
}

#[tokio::test]
async fn otlp_pushes_nodes_and_gpus_as_the_conventions_name_them() {
    let receiver = Receiver::start(&[]).await;
    let controller = receiver.controller(Duration::from_millis(200)).await;
    let owner = controller.owner_of("acme").await;
    let mut well = worker(&controller, &owner, "well", 2, "ok").await;
    let busy = json!({"deviceId": "0", "utilization": 97, "memoryUsed": 64_424_509_440_u64, "temperature": 61,
        "memoryTemperature": 70, "powerDraw": 388,
        "eccErrors": {"volatileCorrected": 2, "volatileUncorrected": 1}});
    let silent = json!({"deviceId": "1", "status": "unknown", "health": "unhealthy"});
    well.send("telemetry.metrics", metrics(json!([busy, silent]))).await;
    well.ping().await;
    let node = receiver.node("well", |node| names(node).contains(&"hw.gpu.utilization")).await;

    let schema = "https://opentelemetry.io/schemas/1.40.0";
    let scope = &node.scope_metrics[0];
    assert_eq!((node.schema_url.as_str(), scope.schema_url.as_str()), (schema, schema));
    assert_eq!(scope.scope.as_ref().unwrap().name, "aio-controller-stub");
    let resource = &node.resource.as_ref().unwrap().attributes;
    for (key, value) in [
        ("service.name", "aio-worker"),
        ("host.id", well.node.as_str()),
        ("host.name", "well.example"),
        ("aio.organisation", "acme"),
    ] {
        assert_eq!(text(resource, key).as_deref(), Some(value), "{key}");
    }

    let gpu = |index: &str| format!("GPU-well-{index}");
    let (first, second) = (gpu("0"), gpu("1"));
    let first_gpu = [("hw.id", first.as_str()), ("hw.type", "gpu"), ("hw.name", "0")];
    for (name, unit, monotonic, value) in [
        ("hw.gpu.utilization", "1", None, 0.97),
        ("hw.gpu.memory.usage", "By", Some(false), 64_424_509_440.0),
        ("hw.power", "W", None, 388.0),
    ] {
        let (told, sum, points) = metric(&node, name);
        assert_eq!((told, sum, values(points, &first_gpu)), (unit, monotonic, vec![value]), "{name}");
        // A silent GPU has no numbers.
        assert_eq!(points.len(), 1, "{name}");
    }
    let (unit, sum, limits) = metric(&node, "hw.gpu.memory.limit");
    assert_eq!((unit, sum, limits.len()), ("By", Some(false), 2));
    let (unit, _, temperatures) = metric(&node, "hw.temperature");
    let sensor = format!("{first}/memory");
    let of_memory = [("hw.id", sensor.as_str()), ("hw.parent", &first), ("hw.type", "temperature")];
    assert_eq!((unit, temperatures.len(), values(temperatures, &of_memory)), ("Cel", 2, vec![70.0]));
    let (unit, sum, errors) = metric(&node, "hw.errors");
    assert_eq!((unit, sum, errors.len()), ("{error}", Some(true), 2));
    assert_eq!(values(errors, &[("error.type", "uncorrected"), first_gpu[0]]), [1.0]);
    let (_, sum, status) = metric(&node, "hw.status");
    let states = |gpu: &str| {
        ["ok", "degraded", "failed"].map(|state| values(status, &[("hw.id", gpu), ("hw.state", state)])[0])
    };
    assert_eq!((sum, states(&second)), (Some(false), [0.0, 0.0, 1.0]));
    let (_, sum, traffic) = metric(&node, "system.network.io");
    assert_eq!((sum, values(traffic, &[("network.io.direction", "transmit")])), (Some(true), vec![8.0]));
    // A start that moves with every reading would be a counter that begins anew.
    assert!(traffic[0].time_unix_nano > 0 && traffic[0].start_time_unix_nano == 0, "{traffic:?}");
    assert_eq!(values(metric(&node, "system.cpu.utilization").2, &[]), [0.125]);
    assert_eq!(values(metric(&node, "aio.node.connected").2, &[]), [1.0]);

    // What was told once is of that time, however often it is pushed.
    let pushed = receiver.posts().len();
    eventually("two pushes more", async || {
        if receiver.posts().len() > pushed + 1 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let again = receiver.node("well", |_| true).await;
    assert_eq!(metric(&again, "hw.power").2, metric(&node, "hw.power").2);

    // Of a node that is away, that is known, and what machine it is.
    well.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    drop(well);
    let away = receiver.node("well", |node| !names(node).contains(&"hw.power")).await;
    let mut left = names(&away);
    left.sort_unstable();
    assert_eq!(left, ["aio.node.connected", "system.memory.limit"]);
    assert_eq!(values(metric(&away, "aio.node.connected").2, &[]), [0.0]);
}

#[tokio::test]
async fn otlp_tries_again_what_may_be_and_drops_what_is_refused() {
    use Answer as A;
    for (answers, failures) in [
        (&[A::Status(503), A::Status(502), A::Taken][..], 2),
        (&[A::Later("1"), A::Taken][..], 1),
        (&[A::Status(400)], 1),
        (&[A::Status(401)], 1),
        (&[A::Status(307)], 1),
        (&[A::Nonsense], 0),
    ] {
        let receiver = Receiver::start(answers).await;
        let began = tokio::time::Instant::now();
        // One round is all there is.
        let controller = receiver.controller(Duration::from_secs(3600)).await;
        controller.owner_of("acme").await.add_node("gpu").await;
        let controller = restarted(controller).await;
        eventually(&format!("{answers:?}"), async || match receiver.answers() {
            seen if seen == answers => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
        let posts = receiver.posts();
        assert!(posts.iter().all(|(_, request)| *request == posts[0].1), "the same is pushed again");
        if answers.contains(&A::Later("1")) {
            assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        }
        eventually("the counts", async || {
            let failed = counted(&controller, "aio_otlp_push_failures_total").await;
            let taken = counted(&controller, "aio_otlp_pushes_total").await;
            let whole = f64::from(u8::from(!matches!(answers, [A::Status(_)])));
            match (failed, taken) {
                seen if seen >= (f64::from(failures), whole) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        assert_eq!(receiver.answers(), answers, "nothing is pushed twice");
    }
}

/// The first round of a controller that had no node yet has pushed nothing.
async fn restarted(mut controller: Controller) -> Controller {
    let address = controller.address();
    controller.stop().await;
    controller.start_again(address).await;
    controller
}

#[tokio::test]
async fn otlp_counts_points_that_the_receiver_rejects_and_goes_on() {
    let receiver = Receiver::start(&[Answer::Partial, Answer::Partial]).await;
    let controller = receiver.controller(Duration::from_millis(200)).await;
    controller.owner_of("acme").await.add_node("gpu").await;
    eventually("a third push", async || match receiver.answers() {
        seen if seen.len() >= 3 => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert!(counted(&controller, "aio_otlp_points_rejected_total").await >= 6.0);
}

#[tokio::test]
async fn otlp_is_in_nobody_s_way_while_the_receiver_hangs_or_is_gone() {
    let receiver = Receiver::start(&[Answer::Hanging, Answer::Hanging]).await;
    let mut controller = receiver.controller(Duration::from_millis(300)).await;
    let owner = controller.owner_of("acme").await;
    owner.add_node("gpu").await;
    // Each round ends when the next is due, and the third is taken.
    eventually("a third push", async || match receiver.answers() {
        seen if seen.len() >= 3 => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert!(counted(&controller, "aio_otlp_push_failures_total").await >= 2.0);
    drop(receiver);
    let failed = counted(&controller, "aio_otlp_push_failures_total").await;
    eventually("failures", async || {
        let more = counted(&controller, "aio_otlp_push_failures_total").await;
        if more > failed { Ok(()) } else { Err(more.to_string()) }
    })
    .await;
    let (status, _) = controller.nobody().get("/readyz").await;
    assert_eq!(status, 200);
    let began = tokio::time::Instant::now();
    controller.stop().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn otlp_pushes_a_fleet_in_parts_of_two_hundred_nodes() {
    let receiver = Receiver::start(&[]).await;
    let controller = receiver.controller(Duration::from_secs(3600)).await;
    let owner = controller.owner_of("acme").await;
    for number in 0..205 {
        owner.add_node(&format!("gpu-{number}")).await;
    }
    let _controller = restarted(controller).await;
    eventually("all nodes in two parts", async || {
        let posts = receiver.posts();
        let mut nodes: Vec<_> = posts.iter().map(|(_, request)| request.resource_metrics.len()).collect();
        nodes.sort_unstable();
        if nodes == [5, 200] { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
}
