//! Policies of topics and subscriptions: read, changed and set as gcloud does, and in force at once.

use platen::local_cloud::{LocalCloud, Settings, Subscription};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::{Fixture, answer, patiently};
use crate::{harness::USER, local_data};

const STORAGE_AGENT: &str = "serviceAccount:service-123456789012@gs-project-accounts.iam.gserviceaccount.com";
const PUBSUB_AGENT: &str = "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com";

/// One who asks, and whom.
struct Caller<'a>(&'a LocalCloud, String);

impl Caller<'_> {
    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/v1/projects/local-project/{path}", self.0.urls().pubsub);
        let http = Client::builder().no_proxy().build().unwrap();
        let (status, answer) = answer(http.request(method, url).bearer_auth(&self.1).json(&body)).await;
        (status.as_u16(), answer)
    }

    async fn policy(&self, of: &str) -> Value {
        let (status, policy) = self.ask(Method::GET, &format!("{of}:getIamPolicy"), json!({})).await;
        assert_eq!(status, 200, "{policy}");
        policy
    }

    async fn set(&self, of: &str, policy: Value) -> (u16, Value) {
        self.ask(Method::POST, &format!("{of}:setIamPolicy"), json!({"policy": policy}))
            .await
    }
}

fn owner(cloud: &LocalCloud) -> Caller<'_> {
    cloud.create_service_account(USER);
    Caller(cloud, cloud.access_token(USER))
}

fn bound(role: &str, members: &[&str]) -> Value {
    json!({"bindings": [{"role": role, "members": members}]})
}

#[tokio::test]
async fn a_policy_is_read_changed_and_written_back() {
    let cloud = LocalCloud::start(Settings::default()).await.unwrap();
    cloud.create_topic("topic").unwrap();
    let owner = owner(&cloud);
    assert_eq!(owner.policy("topics/topic").await, json!({"etag": "ACAB"}));
    let user = format!("user:{USER}");
    let wanted = json!({"etag": "ACAB", "bindings": [
        {"role": "roles/pubsub.publisher", "members": [STORAGE_AGENT]},
        {"role": "roles/pubsub.viewer", "members": []},
        {"role": "roles/pubsub.publisher", "members": [user, "allUsers"]},
    ]});
    let (status, set) = owner.set("topics/topic", wanted.clone()).await;
    assert_eq!(status, 200, "{set}");
    let members = json!(["allUsers", STORAGE_AGENT, user]);
    assert_eq!(
        set["bindings"],
        json!([{"role": "roles/pubsub.publisher", "members": members}])
    );
    assert_eq!(owner.policy("topics/topic").await, set);
    let (status, late) = owner.set("topics/topic", wanted).await;
    assert_eq!((status, &late["error"]["status"]), (409, &json!("ABORTED")));
    let (status, cleared) = owner.set("topics/topic", json!({"etag": set["etag"]})).await;
    assert_eq!((status, cleared.get("bindings")), (200, None));
    assert_ne!(cleared["etag"], set["etag"]);

    let nobody = "serviceAccount:nobody@local-project.iam.gserviceaccount.com";
    let condition = json!({"bindings": [{"role": "roles/pubsub.viewer", "members": ["allUsers"],
        "condition": {"expression": "true"}}]});
    for (policy, status) in [
        (bound("roles/pubsub.reader", &["allUsers"]), 400),
        (bound("projects/local-project/roles/platen_nothing", &["allUsers"]), 400),
        (bound("roles/pubsub.viewer", &[nobody]), 400),
        (bound("roles/pubsub.viewer", &["you"]), 400),
        (bound("roles/pubsub.viewer", &["robot:you"]), 400),
        (json!({"version": 2}), 400),
        (json!({"colour": "red"}), 400),
        (json!({"auditConfigs": [{"service": "x"}]}), 501),
        (condition, 501),
    ] {
        assert_eq!(owner.set("topics/topic", policy.clone()).await.0, status, "{policy}");
    }
    for (method, path, status) in [
        (Method::GET, "topics/none:getIamPolicy", 404),
        (Method::POST, "topics/none:setIamPolicy", 404),
        (Method::GET, "subscriptions/none:getIamPolicy", 404),
        (Method::GET, "topics/topic:setIamPolicy", 404),
        (Method::POST, "topics/topic:getIamPolicy", 404),
    ] {
        let asked = owner.ask(method, path, json!({"policy": {}})).await;
        assert_eq!(asked.0, status, "{path}: {}", asked.1);
    }
    // What is made anew begins anew.
    owner.ask(Method::DELETE, "topics/topic", json!({})).await;
    cloud.create_topic("topic").unwrap();
    assert_eq!(owner.policy("topics/topic").await, json!({"etag": "ACAB"}));
}

#[tokio::test]
async fn what_is_bound_on_a_topic_lets_the_worker_publish_and_no_longer() {
    let cloud = LocalCloud::start(Settings::default()).await.unwrap();
    for id in ["results", "other"] {
        cloud.create_topic(id).unwrap();
    }
    cloud.enforce(&[("topic/results", "results")]).unwrap();
    let (owner, email) = (owner(&cloud), &cloud.settings().worker_service_account);
    let worker = Caller(&cloud, cloud.access_token(email));
    let member = format!("serviceAccount:{email}");
    let publish = async |topic: &str| {
        let message = json!({"messages": [{"data": "eA=="}]});
        let path = format!("topics/{topic}:publish");
        worker.ask(Method::POST, &path, message).await.0
    };
    let shown = owner.policy("topics/results").await;
    assert_eq!(
        shown["bindings"],
        bound("roles/pubsub.publisher", &[&member])["bindings"]
    );
    assert_eq!((publish("results").await, publish("other").await), (200, 403));
    for (policy, status) in [
        (bound("roles/pubsub.publisher", &[&member]), 200),
        (bound("roles/pubsub.viewer", &[&member]), 403),
        (bound("roles/pubsub.editor", &["allAuthenticatedUsers"]), 200),
        (json!({}), 403),
    ] {
        owner.set("topics/other", policy.clone()).await;
        assert_eq!(publish("other").await, status, "{policy}");
    }
    owner.set("topics/results", json!({})).await;
    assert_eq!(
        publish("results").await,
        403,
        "what the deployment bound is taken back too"
    );
    // Policies are not the worker's to read or set, unless it is bound.
    let read = "topics/other:getIamPolicy";
    assert_eq!(worker.ask(Method::GET, read, json!({})).await.0, 403);
    owner.set("topics/other", bound("roles/pubsub.admin", &[&member])).await;
    assert_eq!(worker.ask(Method::GET, read, json!({})).await.0, 200);
    let asked = json!({"permissions": ["pubsub.topics.publish", "pubsub.topics.fly"]});
    let (_, may) = worker
        .ask(Method::POST, "topics/other:testIamPermissions", asked.clone())
        .await;
    assert_eq!(may, json!({"permissions": ["pubsub.topics.publish"]}));
    let inspector = bound("projects/local-project/roles/platen_inspector", &[&member]);
    owner.set("topics/other", inspector).await;
    assert_eq!(worker.ask(Method::GET, "topics/other", json!({})).await.0, 200);
    let (_, may) = worker.ask(Method::POST, "topics/other:testIamPermissions", asked).await;
    assert_eq!(may, json!({}));
}

#[tokio::test]
async fn googles_agents_announce_and_forward_as_soon_as_they_are_bound() {
    let fixture = Fixture::fast().await;
    let cloud = &fixture.cloud;
    cloud.create_bucket("bucket", false).unwrap();
    for id in ["news", "dead"] {
        cloud.create_topic(id).unwrap();
    }
    cloud.enforce(&[]).unwrap();
    for (name, topic, dead_letter) in [("news", "news", Some(("dead", 5))), ("dead", "dead", None)] {
        let wanted = Subscription {
            name,
            topic,
            dead_letter,
            ..Subscription::default()
        };
        cloud.create_subscription(&wanted).unwrap();
    }
    cloud.create_notification("bucket", "news").unwrap();
    let owner = owner(cloud);
    let upload = async |name: &str| {
        let url = format!(
            "{}/upload/storage/v1/b/bucket/o?uploadType=media&name={name}",
            cloud.urls().storage
        );
        let request = fixture.http.post(url).bearer_auth(&owner.1);
        assert_eq!(answer(request.body("x")).await.0, 200);
    };
    let news = "projects/local-project/subscriptions/news";
    upload("unheard").await;
    assert_eq!(cloud.backlog(news).unwrap(), 0);
    let (status, set) = owner
        .set("topics/news", bound("roles/pubsub.publisher", &[STORAGE_AGENT]))
        .await;
    assert_eq!(status, 200, "{set}");
    upload("announced").await;
    assert_eq!(cloud.backlog(news).unwrap(), 1);

    // Its deliveries are used up, and it stays where it is until the agent may forward it.
    for attempt in 1..=6 {
        let pull = json!({"maxMessages": 1});
        let (_, pulled) = patiently(owner.ask(Method::POST, "subscriptions/news:pull", pull)).await;
        let received = &pulled["receivedMessages"][0];
        assert_eq!(received["deliveryAttempt"], attempt);
        let back = json!({"ackIds": [received["ackId"]], "ackDeadlineSeconds": 0});
        owner
            .ask(Method::POST, "subscriptions/news:modifyAckDeadline", back)
            .await;
    }
    owner
        .set("topics/dead", bound("roles/pubsub.publisher", &[PUBSUB_AGENT]))
        .await;
    assert_eq!(cloud.backlog(news).unwrap(), 1);
    owner
        .set("subscriptions/news", bound("roles/pubsub.subscriber", &[PUBSUB_AGENT]))
        .await;
    let dead = patiently(cloud.receive("projects/local-project/subscriptions/dead", 1));
    let dead = dead.await.unwrap().remove(0);
    assert_eq!(dead["message"]["attributes"]["objectId"], "announced");
}

#[tokio::test]
async fn policies_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        let cloud = local_data::cloud(directory.path()).await;
        for id in ["results", "other"] {
            // It is there after the first time.
            let _made = cloud.create_topic(id);
        }
        cloud.enforce(&[("topic/results", "results")]).unwrap();
        cloud
    };
    let cloud = start().await;
    let email = cloud.settings().worker_service_account.clone();
    let member = format!("serviceAccount:{email}");
    let set = {
        let owner = owner(&cloud);
        owner.set("topics/results", json!({})).await;
        owner
            .set("topics/other", bound("roles/pubsub.publisher", &[&member]))
            .await
            .1
    };
    drop(cloud);
    let cloud = start().await;
    let owner = owner(&cloud);
    assert_eq!(owner.policy("topics/other").await, set);
    let worker = Caller(&cloud, cloud.access_token(&email));
    for (topic, status) in [("other", 200), ("results", 403)] {
        let message = json!({"messages": [{"data": "eA=="}]});
        let path = format!("topics/{topic}:publish");
        assert_eq!(worker.ask(Method::POST, &path, message).await.0, status, "{topic}");
    }
}
